"""Embeddings of images, which the model's own processor prepares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import Embedding


def embed_images(
    images: Sequence[np.ndarray],
    prepare: Any,
    encode: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    device: torch.device,
    dtype: torch.dtype,
    padded: bool = False,
) -> list[Embedding]:
    """Prepare and encode images together, and give each its features.

    Args:
        images: Each (H, W, 3) uint8.
        prepare: Image processor of the model.
        encode: From pixels, B x 3 x h x w, to levels of features, each with a leading axis B.
        device: Of the model.
        dtype: Of the features that are kept.
        padded: Images keep their shape and are padded to a square, instead of being squashed to it.
    """
    made = prepare(images=[np.array(image) for image in images], return_tensors="pt")
    pixels = to_device(made["pixel_values"], device)
    levels = encode(pixels)
    sizes = made["reshaped_input_sizes"] if padded else [pixels.shape[-2:]] * len(images)
    return [
        Embedding(
            tuple(level[i].to(dtype, copy=True) for level in levels),
            image.shape[:2],
            (int(size[0]), int(size[1])),
        )
        for i, (image, size) in enumerate(zip(images, sizes, strict=True))
    ]


def levels_of(made: Any) -> list[torch.Tensor]:
    """Return the features that an encoder gave, nested or not, as tensors with a leading axis B."""
    if isinstance(made, torch.Tensor):
        return [made]
    return [level for part in made for level in levels_of(part)]
