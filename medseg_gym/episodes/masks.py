"""From logits at image size to masks and pixel counts, one kernel per distinct size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class MeasuredMask(NamedTuple):
    """A mask, H x W bool on its device, its pixels and those it shares with the truth."""

    mask: torch.Tensor
    pixels: int
    intersection: int


def group_by_shape(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Positions of tensors of equal shape, in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault(tuple(tensor.shape), []).append(i)
    return list(groups.values())


def measure_masks(
    logits: Sequence[torch.Tensor], truths: Sequence[torch.Tensor]
) -> list[MeasuredMask]:
    """Threshold at 0 and count pixels, with a single transfer to the host.

    Args:
        logits: B tensors H x W; sizes may differ from row to row.
        truths: B bool tensors, each of its row's size and device.

    Returns:
        B measured masks, in order.
    """
    groups = group_by_shape(logits)
    stacks, counts = [], []
    for members in groups:
        masks = torch.stack([logits[i] for i in members]) > 0
        both = masks & torch.stack([truths[i] for i in members])
        stacks.append(masks)
        counts.append(torch.stack([masks.sum((1, 2)), both.sum((1, 2))], dim=1))
    pairs = iter(torch.cat(counts).tolist())
    found: dict[int, MeasuredMask] = {}
    for members, masks in zip(groups, stacks, strict=True):
        for i, mask in zip(members, masks, strict=True):
            found[i] = MeasuredMask(mask, *next(pairs))
    return [found[i] for i in range(len(logits))]
