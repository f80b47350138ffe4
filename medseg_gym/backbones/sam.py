"""SamBackbone: any `segment_anything` model as a batch over images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn

from medseg_gym.backbones.base import Embedding, Prediction, PromptRow
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.collate import INERT, TokenBatch, collate
from medseg_gym.backbones.resize import bilinear, resize_each
from medseg_gym.backbones.two_way import run_two_way


class SamBackbone:
    """A Segment Anything model (Kirillov et al., arXiv 2304.02643) over many images at once.

    Args:
        model: A built `segment_anything` model; used in evaluation mode.
        name: Shown in tables.
        device: Where the model goes.
        encode_batch: Most images in one encoder pass; by default 8 on a GPU and 1 on a CPU, where
            larger batches only miss the caches.
        decode_batch: Most rows in one decoder pass.
    """

    prompt_kinds = frozenset({"box", "point"})
    trained_kinds = frozenset({"box", "point"})
    takes_mask_input = True

    def __init__(
        self,
        model: Sam,
        name: str = "sam",
        device: torch.device | str = "cpu",
        encode_batch: int | None = None,
        decode_batch: int = 64,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.encode_batch = encode_batch or (1 if self.device.type == "cpu" else 8)
        self.decode_batch = decode_batch
        self.image_side = int(model.image_encoder.img_size)
        prompt, decoder = model.prompt_encoder, model.mask_decoder
        with torch.inference_mode():
            self._image_pe = prompt.get_dense_pe()
            # Row label - INERT: nothing for padding, then SAM's labels -1, 0, 1, 2, 3.
            kinds = [e.weight for e in (prompt.not_a_point_embed, *prompt.point_embeddings)]
            self._label_table = torch.cat([torch.zeros_like(kinds[0]), *kinds])
            self._output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])

    def __deepcopy__(self, memo: dict) -> SamBackbone:
        # gymnasium deep-copies the kwargs of a spec: a model is shared, never duplicated.
        return self

    # encode -----------------------------------------------------------------------------------
    def _input(self, image: np.ndarray) -> torch.Tensor:
        """3 x h x w float32 in the encoder's frame, not yet padded, for one (H, W, 3) image."""
        resized = ResizeLongestSide(self.image_side).apply_image(image)
        pixels = torch.from_numpy(np.ascontiguousarray(resized)).to(self.device)
        pixels = pixels.permute(2, 0, 1).float()
        return (pixels - self.model.pixel_mean) / self.model.pixel_std

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode images, each (H, W, 3) uint8, in passes of at most `encode_batch`."""
        embeddings = []
        side = self.image_side
        for start in range(0, len(images), self.encode_batch):
            chunk = images[start : start + self.encode_batch]
            inputs = [self._input(image) for image in chunk]
            padded = [F.pad(x, (0, side - x.shape[2], 0, side - x.shape[1])) for x in inputs]
            features = self.model.image_encoder(torch.stack(padded))
            for image, x, feature in zip(chunk, inputs, features, strict=True):
                # A copy of its own, so that evicting one image frees its memory.
                embeddings.append(
                    Embedding((feature.clone(),), image.shape[:2], (x.shape[1], x.shape[2]))
                )
        return embeddings

    # decode -----------------------------------------------------------------------------------
    @torch.inference_mode()
    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Decode rows in passes of at most `decode_batch`; short rows are padded inertly."""
        passes = [
            self._decode(rows[start : start + self.decode_batch])
            for start in range(0, len(rows), self.decode_batch)
        ]
        if len(passes) == 1:
            return passes[0]
        return Prediction(torch.cat([p.logits for p in passes]), torch.cat([p.iou for p in passes]))

    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        decoder = self.model.mask_decoder
        batch = collate(rows, self.device)
        outputs = self._output_tokens.expand(len(rows), -1, -1)
        tokens = torch.cat([outputs, self._embed_tokens(batch)], dim=1)
        token_mask = None
        if batch.padded:
            token_mask = F.pad(batch.labels != INERT, (outputs.shape[1], 0), value=True)
        image = torch.stack([row.embedding.features[0] for row in rows])
        image = image + self._dense_prompts(rows)
        hidden, image_tokens = run_two_way(
            decoder.transformer, image, self._image_pe, tokens, token_mask
        )
        scores = decoder.iou_prediction_head(hidden[:, 0])  # B x masks
        # Choose the mask before it is drawn: three quarters of the products need not be made.
        multimask = torch.as_tensor([row.multimask for row in rows], device=self.device)
        best = torch.where(multimask, scores[:, 1:].argmax(dim=1) + 1, 0)
        upscaled = decoder.output_upscaling(
            image_tokens.transpose(1, 2).unflatten(2, image.shape[2:])
        )
        hyper = torch.stack(
            [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)],
            dim=1,
        )
        every_row = torch.arange(len(rows), device=self.device)
        logits = torch.einsum("bc,bchw->bhw", hyper[every_row, best], upscaled)
        return Prediction(logits.float(), scores[every_row, best].float())

    def _embed_tokens(self, batch: TokenBatch) -> torch.Tensor:
        prompt = self.model.prompt_encoder
        encoding = prompt.pe_layer.forward_with_coords(batch.coords + 0.5, prompt.input_image_size)
        return encoding * (batch.labels >= 0)[..., None] + self._label_table[batch.labels - INERT]

    def _dense_prompts(self, rows: Sequence[PromptRow]) -> torch.Tensor:
        prompt = self.model.prompt_encoder
        no_mask = prompt.no_mask_embed.weight[:, :, None, None]
        given = [row.mask_input for row in rows if row.mask_input is not None]
        if not given:
            return no_mask
        blank = torch.zeros_like(given[0])
        stacked = torch.stack([blank if r.mask_input is None else r.mask_input for r in rows])
        dense = prompt.mask_downscaling(stacked[:, None])
        if len(given) == len(rows):
            return dense
        has_mask = torch.as_tensor([r.mask_input is not None for r in rows], device=self.device)
        return torch.where(has_mask[:, None, None, None], dense, no_mask)

    # back to the image --------------------------------------------------------------------------
    @torch.inference_mode()
    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize to the input frame, cut the padding off, resize to each image: SAM's two steps."""
        side = (self.image_side, self.image_side)

        def resize(part: torch.Tensor, like: Embedding) -> torch.Tensor:
            height, width = like.input_size
            return bilinear(bilinear(part, side)[:, :, :height, :width], like.image_size)

        return resize_each(logits, embeddings, resize)


def build(
    checkpoint: Path | None,
    device: torch.device,
    *,
    size: str,
    name: str,
    random_weights: bool = False,
    **options: Any,
) -> SamBackbone:
    """Build an official SAM ("vit_b", "vit_l", "vit_h") from its checkpoint file.

    With `random_weights` it keeps fresh weights instead: the same work, for timing.
    """
    from segment_anything import sam_model_registry

    if random_weights:
        return SamBackbone(sam_model_registry[size](), name=name, device=device, **options)
    assert checkpoint is not None  # the registry refuses to come here without a file
    state = read_state_dict(checkpoint)
    model: nn.Module = sam_model_registry[size]()
    load_weights(model, state, checkpoint)
    return SamBackbone(model, name=name, device=device, **options)
