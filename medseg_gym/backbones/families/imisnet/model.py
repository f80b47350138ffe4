"""IMISNet's modules: SAM's ViT from timm, SAM's prompt encoder and decoder, CLIP's text encoder.

Architecture of Cheng et al., "Interactive Medical Image Segmentation: A Benchmark Dataset and
Baseline" (arXiv 2411.12814). Parameters are named as in the official `IMISNet-B.pth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from medseg_gym.backbones.families.sam.modeling import (
    MLP,
    LayerNorm2d,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
)
from medseg_gym.backbones.families.sam.two_way import run_two_way
from medseg_gym.errors import BackboneError

PATCH = 16
# Fixed in every official size of IMISNet.
_ENCODER_WINDOW = 14
_DECODER_LAYERS = 2
_DECODER_HEADS = 8
_MASK_CHANNELS = 16
_SEMANTIC_DIM = 512
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)


def _clip_base() -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }


@dataclass(frozen=True)
class ImisNetConfig:
    """Sizes of an IMISNet; the defaults are IMISNet-B."""

    image_size: int = 1024
    """Side of the square that images are squashed to; a multiple of 16."""

    encoder_embed_dim: int = 768
    """Width of the image encoder."""

    encoder_depth: int = 12
    """Blocks of the image encoder."""

    encoder_num_heads: int = 12
    """Attention heads of the image encoder."""

    encoder_global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    """Blocks that attend to the whole image; the others attend within windows of 14 x 14 patches.
    """

    timm_neck_chans: int = 256
    """Width of timm's own neck: never run, but present in the weight file."""

    prompt_embed_dim: int = 768
    """Width of image embedding, prompts and decoder."""

    decoder_mlp_dim: int = 2048
    """Hidden width of the decoder's blocks."""

    iou_head_hidden_dim: int = 256
    """Hidden width of the IoU and semantic heads."""

    text_config: Mapping[str, Any] | None = field(default_factory=_clip_base)
    """Arguments of transformers' `CLIPTextConfig`; None leaves the text encoder out, and with it
    the need for transformers.
    """

    encoder_image_size: int | None = None
    """Side that the encoder's position table was made for, resampled to `image_size` at every pass;
    None means `image_size`.
    """

    def __post_init__(self) -> None:
        for name in ("image_size", "encoder_image_size"):
            side = getattr(self, name)
            if side is not None and (side < PATCH or side % PATCH):
                raise BackboneError(
                    f"IMISNet: {name}={side} is not a positive multiple of {PATCH}; try 1024 or 512"
                )


class ImisImageEncoder(nn.Module):
    """timm's SAM ViT up to its last block, then IMISNet's own neck."""

    def __init__(self, config: ImisNetConfig) -> None:
        super().__init__()
        self.img_size = config.image_size
        self.sam_encoder = VisionTransformerSAM(
            img_size=config.encoder_image_size or config.image_size,
            patch_size=PATCH,
            embed_dim=config.encoder_embed_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_num_heads,
            global_attn_indexes=tuple(config.encoder_global_attn_indexes),
            window_size=_ENCODER_WINDOW,
            use_rel_pos=True,
            neck_chans=config.timm_neck_chans,
            num_classes=0,
        )
        width = config.prompt_embed_dim
        self.neck = nn.Sequential(
            nn.Conv2d(config.encoder_embed_dim, width, kernel_size=1, bias=False),
            LayerNorm2d(width),
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(width),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode B x 3 x S x S normalised pixels to B x C x S/16 x S/16."""
        vit = self.sam_encoder
        x = vit.patch_embed(pixels)
        x = x + resample_abs_pos_embed_nhwc(vit.pos_embed, x.shape[1:3])
        embedding: torch.Tensor = self.neck(vit.blocks(x).permute(0, 3, 1, 2))
        return embedding


class DecoderOutput(NamedTuple):
    """Output of the decoder before any mask is drawn.

    Attributes:
        kernels: B x M x c; mask m of row b is `kernels[b, m] · upscaled[b]`.
        upscaled: B x c x 4h x 4w.
        iou: B x M predicted IoU.
        semantic_tokens: B x M x C, the input of `semantic_prediction_head`.
    """

    kernels: torch.Tensor
    upscaled: torch.Tensor
    iou: torch.Tensor
    semantic_tokens: torch.Tensor


class ImisMaskDecoder(MaskDecoder):
    """SAM's mask decoder with semantic tokens and a text term, over a batch of images."""

    def __init__(self, config: ImisNetConfig) -> None:
        width = config.prompt_embed_dim
        super().__init__(
            transformer_dim=width,
            transformer=TwoWayTransformer(
                depth=_DECODER_LAYERS,
                embedding_dim=width,
                num_heads=_DECODER_HEADS,
                mlp_dim=config.decoder_mlp_dim,
            ),
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        )
        self.semantic_tokens = nn.Embedding(self.num_mask_tokens, width)
        self.text_output = nn.Linear(width, width // 8)
        self.semantic_prediction_head = MLP(width, config.iou_head_hidden_dim, _SEMANTIC_DIM, 3)

    def output_tokens(self) -> torch.Tensor:
        """1 + 2M x C: the tokens that come before the prompt: IoU, masks, semantics."""
        return torch.cat(
            [self.iou_token.weight, self.mask_tokens.weight, self.semantic_tokens.weight]
        )

    def forward(
        self,
        image: torch.Tensor,
        image_pe: torch.Tensor,
        tokens: torch.Tensor,
        token_mask: torch.Tensor | None,
        text: torch.Tensor | None,
        has_text: torch.Tensor | None,
    ) -> DecoderOutput:
        """Run the decoder.

        Args:
            image: B x C x h x w, image embedding plus dense prompt, one per row.
            image_pe: 1 x C x h x w positional encoding.
            tokens: B x N x C, `output_tokens` then prompt tokens.
            token_mask: B x N bool, False for padding; None if nothing is padded.
            text: B x C text embeddings, anything where a row has none; None if no row has text.
            has_text: B bool; None if no row has text.
        """
        hidden, image_tokens = run_two_way(self.transformer, image, image_pe, tokens, token_mask)
        masks = self.num_mask_tokens
        upscaled = self.output_upscaling(image_tokens.transpose(1, 2).unflatten(2, image.shape[2:]))
        kernels = torch.stack(
            [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        if text is not None and has_text is not None:
            # A mask is linear in its kernel, so the text's own mask is added by adding kernels.
            kernels = kernels + (self.text_output(text) * has_text[:, None])[:, None]
        return DecoderOutput(
            kernels,
            upscaled,
            self.iou_prediction_head(hidden[:, 0]),
            hidden[:, 1 + masks : 1 + 2 * masks],
        )


def _clip_text_model(arguments: Mapping[str, Any]) -> Any:
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise BackboneError(
            f"IMISNet's text encoder needs the package transformers ({error}): "
            'pip install "medseg-gym[imisnet]", or load the backbone with text=False'
        ) from None
    model = CLIPTextModel(CLIPTextConfig(**arguments))
    # transformers 4 wraps the encoder once more; its parameters are the same.
    return getattr(model, "text_model", model)


class ImisNet(nn.Module):
    """IMISNet as the official weight file lays it out: a container, run by `ImisNetBackbone`.

    Args:
        config: Sizes; by default IMISNet-B.

    Raises:
        BackboneError: The configuration has a text encoder and transformers is not installed.
    """

    def __init__(self, config: ImisNetConfig | None = None) -> None:
        super().__init__()
        config = config or ImisNetConfig()
        self.config = config
        side, width = config.image_size, config.prompt_embed_dim
        self.image_encoder = ImisImageEncoder(config)
        self.prompt_encoder = PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side // PATCH, side // PATCH),
            input_image_size=(side, side),
            mask_in_chans=_MASK_CHANNELS,
        )
        self.mask_decoder = ImisMaskDecoder(config)
        self.text_model: Any = None
        self.text_out_dim: nn.Module | None = None
        if config.text_config is not None:
            self.text_model = _clip_text_model(config.text_config)
            self.text_out_dim = nn.Linear(self.text_model.config.hidden_size, width)
        self.register_buffer("pixel_mean", _per_channel(_IMAGENET_MEAN), persistent=False)
        self.register_buffer("pixel_std", _per_channel(_IMAGENET_STD), persistent=False)

    def embed_text(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Embed one sentence, 1 x L int64 token ids, to C: CLIP's pooled output, projected."""
        assert self.text_model is not None and self.text_out_dim is not None
        embedding: torch.Tensor = self.text_out_dim(
            self.text_model(input_ids=token_ids).pooler_output
        )[0]
        return embedding


def _per_channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def adapt_state(state: dict[str, torch.Tensor], with_text: bool) -> dict[str, torch.Tensor]:
    """Bring a weight file's keys to the names used here.

    transformers 4 saves the text encoder under `text_model.text_model.`, transformers 5 and the
    suite under `text_model.`; releases before 4.31 also saved a table of position numbers, which
    is no weight. Without a text encoder everything under `text_model.` and `text_out_dim.` is
    left out.
    """
    adapted = {}
    for key, value in state.items():
        if key.startswith(("text_model.", "text_out_dim.")) and not with_text:
            continue
        if key.startswith("text_model.text_model."):
            key = key.removeprefix("text_model.")
        if key != "text_model.embeddings.position_ids":
            adapted[key] = value
    return adapted
