"""Resize a batch of logits to images of different size: one call per distinct size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import Embedding


def bilinear(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resize B x 1 x h x w to `size` (H, W), half-pixel centres."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def resize_each(
    logits: torch.Tensor,
    embeddings: Sequence[Embedding],
    resize: Callable[[torch.Tensor, Embedding], torch.Tensor],
) -> list[torch.Tensor]:
    """Apply `resize` once per group of rows whose images are resized alike.

    Args:
        logits: B x h x w.
        embeddings: B embeddings.
        resize: Takes b x 1 x h x w and any embedding of the group, returns b x 1 x H x W.

    Returns:
        B tensors H x W, in order.
    """
    groups: dict[tuple, list[int]] = {}
    for i, embedding in enumerate(embeddings):
        groups.setdefault((embedding.input_size, embedding.image_size), []).append(i)
    resized_rows: list[torch.Tensor] = [logits] * len(embeddings)
    for members in groups.values():
        rows = logits if len(groups) == 1 else logits[to_device(members, logits.device)]
        resized = resize(rows[:, None], embeddings[members[0]])
        for member, image in zip(members, resized[:, 0], strict=True):
            resized_rows[member] = image
    return resized_rows
