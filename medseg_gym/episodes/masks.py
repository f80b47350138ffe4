"""From what a backbone predicts to masks and counts, on a GPU by one kernel per distinct size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from medseg_gym.backbones.finite import NonFiniteError, row_sums, rows_not_finite
from medseg_gym.backbones.protocol import Prediction
from medseg_gym.errors import BackboneError


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
    logits: Sequence[torch.Tensor],
    truths: Sequence[torch.Tensor],
    backbone: str = "unnamed",
    prediction: Prediction | None = None,
) -> list[MeasuredMask]:
    """Threshold at 0 and count pixels, with a single transfer to the host.

    Whether every number is finite travels with the counts: a sum per row tells it.

    Args:
        logits: B tensors H x W; sizes may differ from row to row.
        truths: B bool tensors, each of its row's size and device.
        backbone: Its name, for errors.
        prediction: Low-resolution logits and predicted IoU that the logits were made of, if they
            are to be checked as well.

    Returns:
        B measured masks, in order.

    Raises:
        NonFiniteError: Low-resolution logits, predicted IoU or logits at image size that are not
            finite numbers, naming the rows.
        BackboneError: Logits of another size than the truths.
    """
    _check_sizes(backbone, logits, truths)
    low_sums = None if prediction is None else row_sums(prediction.logits) + prediction.iou
    if logits and logits[0].device.type == "cpu":
        return _measure_on_cpu(logits, truths, backbone, prediction, low_sums)
    groups = group_by_shape(logits)
    stacks, counts = [], []
    for members in groups:
        stacked = torch.stack([logits[i] for i in members])
        masks = stacked > 0
        both = masks & torch.stack([truths[i] for i in members])
        stacks.append(masks)
        sums = row_sums(stacked)
        if low_sums is not None:
            sums += low_sums if len(groups) == 1 else low_sums[members]
        counts.append(torch.stack([masks.sum((1, 2)), both.sum((1, 2)), sums.isfinite()], dim=1))
    rows = torch.cat(counts).tolist()
    if not all(finite for _, _, finite in rows):
        _find_not_finite(backbone, prediction, logits)
    pairs = iter(rows)
    measured: dict[int, MeasuredMask] = {}
    for members, masks in zip(groups, stacks, strict=True):
        for i, mask in zip(members, masks, strict=True):
            pixels, intersection, _ = next(pairs)
            measured[i] = MeasuredMask(mask, pixels, intersection)
    return [measured[i] for i in range(len(logits))]


def _measure_on_cpu(
    logits: Sequence[torch.Tensor],
    truths: Sequence[torch.Tensor],
    backbone: str,
    prediction: Prediction | None,
    low_sums: torch.Tensor | None,
) -> list[MeasuredMask]:
    """Row after row, while it is in the cache; NumPy counts bits where torch adds integers."""
    sums = [float(row_sums(row[None])) for row in logits]
    low = [0.0] * len(logits) if low_sums is None else low_sums.tolist()
    if not all(math.isfinite(one + other) for one, other in zip(sums, low, strict=True)):
        _find_not_finite(backbone, prediction, logits)
    measured = []
    for row, truth in zip(logits, truths, strict=True):
        mask = row > 0
        both = mask & truth
        pixels, shared = (int(np.count_nonzero(bits.numpy())) for bits in (mask, both))
        measured.append(MeasuredMask(mask, pixels, shared))
    return measured


def check_prediction(backbone: str, prediction: Prediction, count: int) -> None:
    """Refuse a prediction that is not one of `count` rows.

    Raises:
        BackboneError: With the shapes.
    """
    low, iou = tuple(prediction.logits.shape), tuple(prediction.iou.shape)
    if len(low) != 3 or low[0] != count or iou != (count,):
        raise BackboneError(
            f"backbone {backbone!r}: decode of {count} rows must give logits ({count}, h, w) and "
            f"predicted IoU ({count},), got {low} and {iou}"
        )


def _check_sizes(
    backbone: str, logits: Sequence[torch.Tensor], truths: Sequence[torch.Tensor]
) -> None:
    """Other sizes would be broadcast silently, and count pixels that are not there."""
    sizes = [tuple(tensor.shape) for tensor in logits]
    wanted = [tuple(truth.shape) for truth in truths]
    if sizes != wanted:
        raise BackboneError(
            f"backbone {backbone!r}: to_image must give logits of the images' sizes (height, "
            f"width), {wanted[:5]}, got {sizes[:5]}"
        )


def _find_not_finite(
    backbone: str, prediction: Prediction | None, logits: Sequence[torch.Tensor]
) -> None:
    """Raise for the rows at fault; return where finite numbers only had too large a sum."""
    parts = [("logits at image size", list(logits))]
    if prediction is not None:
        parts = [
            ("logits", list(prediction.logits)),
            ("predicted IoU", list(prediction.iou)),
            *parts,
        ]
    for what, values in parts:
        if rows := rows_not_finite(values):
            raise NonFiniteError(backbone, what, rows)
