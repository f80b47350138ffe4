"""Sam2Backbone: any `sam2` model (SAM 2.0, SAM 2.1, MedSAM2) as a batch over images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.collate import INERT, collate
from medseg_gym.backbones.batching.passes import BatchedBackbone
from medseg_gym.backbones.batching.resize import resize_to_images
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.families.sam.prompts import PromptEmbedder
from medseg_gym.backbones.families.sam.two_way import run_two_way
from medseg_gym.backbones.families.sam2.memory import MASK_INPUT_LIMIT, Sam2Memory
from medseg_gym.backbones.families.sam2.upscaling import Upscaling, by_parent, to_grid
from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.errors import BackboneError

if TYPE_CHECKING:  # the package is optional: `build` imports it
    from sam2.modeling.sam2_base import SAM2Base

# ImageNet statistics of pixels in [0, 1], as in sam2's SAM2Transforms.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LARGEST_STRIDE = 32  # of Hiera's four stages


class Sam2Backbone(BatchedBackbone):
    """A SAM 2 model (Ravi et al., arXiv 2408.00714) on still images, many at once.

    Gives what `sam2.sam2_image_predictor.SAM2ImagePredictor` gives, one decoder call for all rows.
    An embedding holds three tensors, pixels first as the decoder reads them: with P = (S/16)^2
    pixels for a square input of side S, and C = 256, the finest features, P x 16 x C/8, the middle
    ones, P x 4 x C/4, both grouped by the pixel that they refine (see `sam2_upscaling`), and the
    image embedding, P x C. A model without high-resolution features gives the last one alone.

    Its memory for video carries masks through the slices of a volume (`memory`), over the same
    embeddings.

    Args:
        model: A built `SAM2Base`; used in evaluation mode.
            Some weights are laid out anew here: after changing them, build the backbone again.
        name: Shown in tables.
        device: Where the model goes.
        **options: See `BatchedBackbone`.
    """

    prompt_kinds = frozenset({"box", "point"})
    trained_kinds = frozenset({"box", "point"})
    takes_mask_input = True

    def __init__(
        self,
        model: SAM2Base,
        name: str = "sam2",
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(model, name, device, **options)
        self._encoder = self.compiled(model.forward_image)
        self.image_side = int(model.image_size)
        decoder = model.sam_mask_decoder
        with torch.inference_mode():
            self._mean, self._std = (
                torch.tensor(values, device=self.device)[:, None, None] for values in (_MEAN, _STD)
            )
            self._prompts = PromptEmbedder(model.sam_prompt_encoder, MASK_INPUT_LIMIT)
            self._upscale = Upscaling(decoder.output_upscaling)
            self._image_pe = model.sam_prompt_encoder.get_dense_pe()
            outputs = [decoder.iou_token.weight, decoder.mask_tokens.weight]
            if decoder.pred_obj_scores:
                outputs.insert(0, decoder.obj_score_token.weight)
            self._output_tokens = torch.cat(outputs)
        self._iou_token = int(decoder.pred_obj_scores)  # the masks' tokens follow it

    # encode -----------------------------------------------------------------------------------
    def _input(self, image: np.ndarray) -> torch.Tensor:
        """Squash one (H, W, 3) uint8 image to 3 x S x S float32, normalised."""
        pixels = to_device(np.array(image), self.device).permute(2, 0, 1).float() / 255
        side = (self.image_side, self.image_side)
        if image.shape[:2] != side:
            pixels = F.interpolate(
                pixels[None], side, mode="bilinear", align_corners=False, antialias=True
            )[0]
        return (pixels - self._mean) / self._std

    def _encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        model, embeddings = self.model, []
        pyramid = self._encoder(torch.stack([self._input(image) for image in images]))
        levels = list(pyramid["backbone_fpn"][-model.num_feature_levels :])
        if model.directly_add_no_mem_embed:
            levels[-1] = levels[-1] + model.no_mem_embed[0, 0, :, None, None]
        side = (self.image_side, self.image_side)
        levels = [level.to(self.dtype) for level in levels]
        for image, *features in zip(images, *levels, strict=True):
            # Copies of its own, so that evicting one image frees its memory.
            finer = [by_parent(f, n) for f, n in zip(features[:-1], (2, 1), strict=False)]
            coarsest = by_parent(features[-1], 0)[:, 0]
            embeddings.append(Embedding((*finer, coarsest), image.shape[:2], side))
        return embeddings

    # decode -----------------------------------------------------------------------------------
    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        # The logits are not clamped, so that masks made from them equal the predictor's. Fed back
        # as mask input they are, as the predictor's own low-resolution logits are.
        decoder = self.model.sam_mask_decoder
        batch = collate(rows, self.device, boxes_as_points=True)
        outputs = self._output_tokens.expand(len(rows), -1, -1)
        tokens = torch.cat([outputs, self._prompts.tokens(batch)], dim=1)
        token_mask = None
        if batch.padded:
            token_mask = F.pad(batch.labels != INERT, (outputs.shape[1], 0), value=True)
        levels = [
            torch.stack(level)
            for level in zip(*(row.embedding.features for row in rows), strict=True)
        ]
        grid = self._image_pe.shape[2:]
        image = levels.pop().transpose(1, 2).unflatten(2, grid) + self._prompts.dense(rows)
        hidden, image_tokens = run_two_way(
            decoder.transformer, image, self._image_pe, tokens, token_mask
        )
        hidden = hidden[:, self._iou_token :]
        scores = decoder.iou_prediction_head(hidden[:, 0])  # B x masks
        hyper = torch.stack(
            [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)],
            dim=1,
        )
        chosen, iou = self._choose(rows, scores, hyper, self._upscale(image_tokens, levels))
        return Prediction(to_grid(chosen, grid, 2).float(), iou.float())

    def _choose(
        self,
        rows: Sequence[PromptRow],
        scores: torch.Tensor,
        hyper: torch.Tensor,
        pixels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pick each row's mask and draw it, two candidates at most.

        A row of one mask takes token 0, or, where the model falls back on stability, the best of
        the three others if many of its logits lie near zero.

        Args:
            rows: B rows.
            scores: B x masks predicted IoU.
            hyper: B x masks x C weights of each mask's dot product.
            pixels: B x P x C upscaled image.

        Returns:
            Logits, B x P, and predicted IoU, B.
        """
        decoder = self.model.sam_mask_decoder
        every_row = torch.arange(len(rows), device=self.device)
        chosen = scores[:, 1:].argmax(dim=1) + 1
        logits = None
        if not all(row.multimask for row in rows):
            multimask = to_device([row.multimask for row in rows], self.device)
            if decoder.dynamic_multimask_via_stability:
                pair = torch.stack([hyper[:, 0], hyper[every_row, chosen]], dim=1)
                single, best = torch.bmm(pair, pixels.mT).unbind(1)
                stability = decoder._get_stability_scores(single[:, None])  # B, it flattens h x w
                unstable = stability < decoder.dynamic_multimask_stability_thresh
                take_best = multimask | unstable
                logits = torch.where(take_best[:, None], best, single)
            else:
                take_best = multimask
            chosen = torch.where(take_best, chosen, 0)
        if logits is None:
            logits = torch.bmm(hyper[every_row, chosen][:, None], pixels.mT)[:, 0]
        return logits, scores[every_row, chosen]

    # through slices -----------------------------------------------------------------------------
    def memory(self, depth: int) -> Sam2Memory:
        """Start an empty memory for a stack of `depth` slices; see `SliceMemory`."""
        return Sam2Memory(self.model, self._precision, self.name, depth)

    # back to the image --------------------------------------------------------------------------
    @torch.inference_mode()
    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize the square to each image."""
        return resize_to_images(logits, embeddings)


def build_model(config: str, image_size: int | None = None) -> SAM2Base:
    """Build a model with fresh weights from one of sam2's configurations.

    Args:
        config: Such as "sam2.1_hiera_t": a file name under `sam2/configs`, without ".yaml".
        image_size: Side of the square input, a multiple of 32; by default the configuration's.

    Raises:
        BackboneError: `sam2` is not installed, or the configuration or size is impossible.
    """
    try:
        import sam2
        from hydra.utils import instantiate
        from omegaconf import OmegaConf
    except ImportError as error:
        raise BackboneError(
            f'SAM 2 models need the package sam2 ({error}): pip install "medseg-gym[sam2]"'
        ) from error
    if image_size is not None and (image_size < 1 or image_size % _LARGEST_STRIDE):
        raise BackboneError(
            f"{config}: image_size={image_size} must be a positive multiple of {_LARGEST_STRIDE}"
        )
    folder = Path(sam2.__path__[0]) / "configs" / config.partition("_hiera")[0]
    path = folder / f"{config}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.parent.glob("sam2*/sam2*_hiera_*.yaml"))
        raise BackboneError(f"sam2 has no configuration {config!r}; it has {', '.join(known)}")
    # The file is read here rather than through `build_sam2`, whose `hydra.compose` depends on
    # global state that belongs to the caller's program.
    settings = OmegaConf.load(path).model
    # What `build_sam2` sets by default, hence what the official predictor does.
    OmegaConf.update(
        settings,
        "sam_mask_decoder_extra_args",
        {
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
        force_add=True,
    )
    # What `build_sam2_video_predictor` sets as well.
    OmegaConf.update(settings, "binarize_mask_from_pts_for_mem_enc", True, force_add=True)
    if image_size is not None:
        settings.image_size = image_size
    return instantiate(settings)


def build(
    checkpoint: Path | None,
    device: torch.device,
    *,
    config: str,
    name: str,
    image_size: int | None = None,
    random_weights: bool = False,
    **options: Any,
) -> Sam2Backbone:
    """Build a model by name of configuration from its checkpoint file.

    Args:
        checkpoint: Official weight file; None with `random_weights`.
        device: Where the model goes.
        config: See `build_model`.
        name: Shown in tables.
        image_size: See `build_model`.
        random_weights: Keep the fresh weights: the same work as a trained model, for timing.
        options: Go to `Sam2Backbone`.
    """
    if random_weights:
        model = build_model(config, image_size)
        return Sam2Backbone(model, name=name, device=device, **options)
    assert checkpoint is not None  # the registry refuses to come here without a file
    state = read_state_dict(checkpoint)
    model = build_model(config, image_size)
    load_weights(model, state, checkpoint)
    return Sam2Backbone(model, name=name, device=device, **options)


def build_medsam2(
    checkpoint: Path | None, device: torch.device, *, image_size: int = 512, **options: Any
) -> Sam2Backbone:
    """Build MedSAM2 (Ma et al., arXiv 2504.03600): SAM 2.1 tiny, trained on 512 x 512 images.

    `image_size=1024` feeds it as MedSAM-Agent does.
    """
    return build(
        checkpoint,
        device,
        config="sam2.1_hiera_t",
        name="medsam2",
        image_size=image_size,
        **options,
    )
