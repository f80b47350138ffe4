"""A `pocket` model as a batch over images, and the one that the package carries."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_gym.backbones.batching.collate import collate
from medseg_gym.backbones.batching.fused import multiplies_bfloat16
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.families.pocket.decoder import build_model, decode, image_side
from medseg_gym.backbones.families.pocket.encoder import PIXEL_STD, SIDE
from medseg_gym.backbones.families.sam.backbone import SamBackbone
from medseg_gym.backbones.families.sam.modeling import Sam
from medseg_gym.backbones.families.sam.prompts import gather_masks
from medseg_gym.backbones.protocol import PromptRow

WEIGHTS = Path(__file__).parent / "weights" / "pocket.safetensors"


class PocketBackbone(SamBackbone):
    """A `pocket` model over many images at once.

    An embedding holds four tensors: cells 96 x 32 x 32, directions 48 x 32 x 32, and skips
    32 x 64 x 64 and 64 x 64 x 64; 2.2 MB in float32. Low-resolution logits are 128 x 128.

    With dtype "bfloat16" or "float16" the weights that work on whole images are kept in it, the few
    tokens stay in float32. On a CPU with AMX or avx512_bf16 that is much faster; logits move
    by up to 0.3, so pixels at a mask's very border may change sides.
    """

    def __init__(
        self, model: Sam, name: str = "pocket", device: torch.device | str = "cpu", **options: Any
    ) -> None:
        model.to(memory_format=torch.channels_last)
        # Small enough that batches pay on a CPU, too, up to where they leave its caches.
        if torch.device(device).type == "cpu":
            options = {"encode_batch": 8, "decode_batch": 32, **options}
        super().__init__(model, name, device, **options)
        if self.dtype is torch.bfloat16 and self.device.type == "cpu" and not multiplies_bfloat16():
            warnings.warn(
                "pocket?dtype=bfloat16: this CPU has no products of bfloat16 (avx512_bf16 or AMX), "
                "so float32 is faster here",
                stacklevel=2,
            )
        for part in image_side(self.model):
            part.to(self.dtype)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        # The weights are in their precision for good: autocast would make copies in every call.
        with torch.inference_mode():
            yield

    def _stacked(self, images: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        # Black is 0 before and after normalising, so padding and all else is done to the batch.
        resized = [self._resized(image) for image in images]
        frames = np.zeros((len(images), SIDE, SIDE, 3), np.uint8)
        for frame, pixels in zip(frames, resized, strict=True):
            frame[: pixels.shape[0], : pixels.shape[1]] = pixels
        stacked = to_device(frames, self.device).permute(0, 3, 1, 2).float()
        return stacked.div_(PIXEL_STD), [(p.shape[0], p.shape[1]) for p in resized]

    def _features(self, rows: Sequence[PromptRow]) -> list[list[torch.Tensor]]:
        return [list(level) for level in zip(*(r.embedding.features for r in rows), strict=True)]

    def _run(
        self, features: Sequence[Any], rows: Sequence[PromptRow]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return decode(self.model, features, collate(rows, self.device), *gather_masks(rows))

    def _draw(self, hyper: torch.Tensor, upscaled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.mask_decoder.masks(hyper[:, None], upscaled)[:, 0]
        return logits


def build(checkpoint: Path | None, device: torch.device, **options: Any) -> PocketBackbone:
    """Build `pocket` from `checkpoint`, by default from the weights inside the package."""
    model = build_model()
    path = Path(checkpoint or WEIGHTS)
    state = {name: tensor.float() for name, tensor in read_state_dict(path).items()}
    load_weights(model, state, path)
    return PocketBackbone(model, device=device, **options)
