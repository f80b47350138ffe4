"""SamBackbone: any `segment_anything` model as a batch over images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from medseg_gym.backbones.batching.collate import collate
from medseg_gym.backbones.batching.passes import BatchedBackbone
from medseg_gym.backbones.batching.resize import resize_to_images
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.families.sam.modeling import Sam
from medseg_gym.backbones.families.sam.prompts import PromptEmbedder, read_output_tokens
from medseg_gym.backbones.families.sam.two_way import run_two_way
from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.errors import BackboneError


class SamBackbone(BatchedBackbone):
    """A Segment Anything model (Kirillov et al., arXiv 2304.02643) over many images at once.

    Args:
        model: A built `segment_anything` model.
        name: Shown in tables.
        device: Where the model goes.
        **options: See `BatchedBackbone`.
    """

    prompt_kinds = frozenset({"box", "point"})
    trained_kinds = frozenset({"box", "point"})
    takes_mask_input = True

    def __init__(
        self, model: Sam, name: str = "sam", device: torch.device | str = "cpu", **options: Any
    ) -> None:
        super().__init__(model, name, device, **options)
        self.image_side = int(model.image_encoder.img_size)
        self._encoder = self.compiled(model.image_encoder)
        self._prompts = PromptEmbedder(model.prompt_encoder)
        with torch.inference_mode():
            self._image_pe = model.prompt_encoder.get_dense_pe()

    # encode -----------------------------------------------------------------------------------
    def _resized(self, image: np.ndarray) -> np.ndarray:
        """Resize an (H, W, 3) image to the encoder's frame, h x w x 3 uint8, not yet padded."""
        if 2 * self.image_side * min(image.shape[:2]) < max(image.shape[:2]):
            raise BackboneError(
                f"{self.name}: an image of {image.shape[:2]} (height, width) is too elongated: "
                f"scaled to {self.image_side} pixels its short side vanishes; crop or pad it"
            )
        scale = self.image_side / max(image.shape[:2])
        height, width = (int(length * scale + 0.5) for length in image.shape[:2])
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def _input(self, image: np.ndarray) -> torch.Tensor:
        """3 x h x w float32 in the encoder's frame, not yet padded, for one (H, W, 3) image."""
        pixels = to_device(self._resized(image), self.device)
        pixels = pixels.permute(2, 0, 1).float()
        normalised: torch.Tensor = (pixels - self.model.pixel_mean) / self.model.pixel_std
        return normalised

    def _stacked(self, images: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """Return B x 3 x side x side encoder inputs, padded with 0, and B sizes (h, w) inside."""
        side = self.image_side
        inputs = [self._input(image) for image in images]
        padded = [F.pad(x, (0, side - x.shape[2], 0, side - x.shape[1])) for x in inputs]
        return torch.stack(padded), [(x.shape[1], x.shape[2]) for x in inputs]

    def _encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        stacked, sizes = self._stacked(images)
        # Encoders number relative positions wherever new tensors go: on the host they would be
        # copied from there, twice a layer, and waited for.
        with nullcontext() if self.device.type == "cpu" else self.device:
            features = self._encoder(stacked)
        if isinstance(features, torch.Tensor):
            features = (features,)
        return [
            Embedding(
                # Copies of their own, so that evicting one image frees its memory.
                tuple(level[i].to(self.dtype, copy=True) for level in features),
                image.shape[:2],
                size,
            )
            for i, (image, size) in enumerate(zip(images, sizes, strict=True))
        ]

    # decode -----------------------------------------------------------------------------------
    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        scores, hyper, upscaled = self._run(self._features(rows), rows)
        # Choose the mask before it is drawn: three quarters of the products need not be made.
        multimask = to_device([row.multimask for row in rows], self.device)
        best = torch.where(multimask, scores[:, 1:].argmax(dim=1) + 1, 0)
        every_row = torch.arange(len(rows), device=self.device)
        logits = self._draw(hyper[every_row, best], upscaled)
        return Prediction(logits.float(), scores[every_row, best].float())

    def _features(self, rows: Sequence[PromptRow]) -> Sequence[Any]:
        """Features of the rows' images, each B x C x h x w."""
        return [
            torch.stack(level) for level in zip(*(r.embedding.features for r in rows), strict=True)
        ]

    def _run(
        self, features: Sequence[torch.Tensor], rows: Sequence[PromptRow]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predicted IoU, B x K; weights per mask, B x K x c; features for `_draw`."""
        decoder = self.model.mask_decoder
        tokens, token_mask = self._prompts.with_outputs(decoder, collate(rows, self.device))
        image = features[0] + self._prompts.dense(rows)
        hidden, image_tokens = run_two_way(
            decoder.transformer, image, self._image_pe, tokens, token_mask
        )
        upscaled = decoder.output_upscaling(
            image_tokens.transpose(1, 2).unflatten(2, image.shape[2:])
        )
        return *read_output_tokens(decoder, hidden), upscaled

    def _draw(self, hyper: torch.Tensor, upscaled: torch.Tensor) -> torch.Tensor:
        """Logits B x h x w from one row of weights each, B x c, and features."""
        return torch.einsum("bc,bchw->bhw", hyper, upscaled)

    # back to the image --------------------------------------------------------------------------
    @torch.inference_mode()
    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize to the input frame, cut the padding off, resize to each image: SAM's two steps."""
        return resize_to_images(logits, embeddings, self.image_side)


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
