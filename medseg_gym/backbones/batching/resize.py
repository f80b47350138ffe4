"""Resize a batch of logits to images of different size: one call per distinct size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import Embedding


def bilinear(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize B x 1 x h x w to `size` (H, W), half-pixel centres."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def resize_to_images(
    logits: torch.Tensor, embeddings: Sequence[Embedding], frame_side: int | None = None
) -> list[torch.Tensor]:
    """Resize logits to their images, once per group of rows whose images are resized alike.

    Args:
        logits: B x h x w.
        embeddings: B embeddings.
        frame_side: Side of the square that images were padded to: SAM's two steps, to the square,
            whose padding is cut off, and to the image. None where they were squashed to it.

    Returns:
        B tensors H x W, in order.
    """
    groups: dict[tuple, list[int]] = {}
    for i, embedding in enumerate(embeddings):
        groups.setdefault((embedding.input_size, embedding.image_size), []).append(i)
    resized_rows: list[torch.Tensor] = [logits] * len(embeddings)
    for members in groups.values():
        rows = logits if len(groups) == 1 else logits[to_device(members, logits.device)]
        like, resized = embeddings[members[0]], rows[:, None]
        if frame_side is not None:
            height, width = like.input_size
            resized = bilinear(resized, (frame_side, frame_side))[:, :, :height, :width]
        resized = bilinear(resized, like.image_size)
        for member, image in zip(members, resized[:, 0], strict=True):
            resized_rows[member] = image
    return resized_rows
