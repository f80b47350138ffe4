"""From what a backbone predicts to masks and counts, on a GPU by one kernel per distinct size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.finite import NonFiniteError, row_sums, rows_not_finite
from medseg_gym.backbones.protocol import Prediction
from medseg_gym.errors import BackboneError

Fetch: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Makes of masks, B x H x W bool, what is wanted of them in the host's memory, B x ... bool."""


class MeasuredMask(NamedTuple):
    """A mask, H x W bool on its device, and what is known of it in the host's memory.

    Attributes:
        mask: The mask.
        pixels: Pixels in it.
        intersection: Pixels in it and in the truth.
        fetched: Bool array that was asked for; None if nothing was.
    """

    mask: torch.Tensor
    pixels: int
    intersection: int
    fetched: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask in the host's memory, a bit a pixel.

    Args:
        bits: H x W/8 uint8, rounded up.
        width: W.
    """

    bits: np.ndarray
    width: int

    @classmethod
    def of(cls, mask: np.ndarray) -> PackedMask:
        """Pack H x W bool."""
        return cls(np.packbits(mask, axis=1), mask.shape[1])

    def array(self) -> np.ndarray:
        """Return the mask, H x W bool, fresh."""
        return np.unpackbits(self.bits, axis=1, count=self.width).view(bool)


def sample_squares(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Sample masks, B x H x W, at the centres of a square's pixels: B x S x S.

    Args:
        masks: Of one size.
        side: S.
    """
    height, width = masks.shape[1:]
    return masks[
        :, _centres(side, height, masks.device)[:, None], _centres(side, width, masks.device)
    ]


@lru_cache(maxsize=256)
def _centres(side: int, length: int, device: torch.device) -> torch.Tensor:
    """Pixels of `length` under the centres of those of `side`, int64."""
    return ((torch.arange(side, device=device) + 0.5) * length / side).long()


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
    fetch: Fetch | None = None,
) -> list[MeasuredMask]:
    """Threshold at 0 and count pixels, with a single transfer to the host.

    Whether every number is finite travels with the counts: a sum per row tells it.

    Args:
        logits: B tensors H x W; sizes may differ from row to row.
        truths: B bool tensors, each of its row's size and device.
        backbone: Its name, for errors.
        prediction: Low-resolution logits and predicted IoU that the logits were made of, if they
            are to be checked as well.
        fetch: What of the masks comes with the counts; None for nothing.

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
        return _measure_on_cpu(logits, truths, backbone, prediction, low_sums, fetch)
    return _measure_on_device(logits, truths, backbone, prediction, low_sums, fetch)


def _measure_on_device(
    logits: Sequence[torch.Tensor],
    truths: Sequence[torch.Tensor],
    backbone: str,
    prediction: Prediction | None,
    low_sums: torch.Tensor | None,
    fetch: Fetch | None,
) -> list[MeasuredMask]:
    """All rows of a size together, and one transfer for all sizes: the host waits once."""
    groups = group_by_shape(logits)
    stacks, counts, wanted = [], [], []
    for members in groups:
        stacked = torch.stack([logits[i] for i in members])
        masks = stacked > 0
        both = masks & torch.stack([truths[i] for i in members])
        stacks.append(masks)
        sums = row_sums(stacked)
        if low_sums is not None:
            sums += low_sums if len(groups) == 1 else low_sums[to_device(members, sums.device)]
        counts.append(torch.stack([masks.sum((1, 2)), both.sum((1, 2)), sums.isfinite()], dim=1))
        if fetch is not None:
            wanted.append(fetch(masks))
    (table, *fetched) = _to_host([torch.cat(counts), *wanted])
    rows = table.tolist()
    if not all(finite for _, _, finite in rows):
        _find_not_finite(backbone, prediction, logits)
    pairs = iter(rows)
    measured: dict[int, MeasuredMask] = {}
    for number, (members, masks) in enumerate(zip(groups, stacks, strict=True)):
        for row, (i, mask) in enumerate(zip(members, masks, strict=True)):
            pixels, intersection, _ = next(pairs)
            host = fetched[number][row] if fetched else None
            measured[i] = MeasuredMask(mask, pixels, intersection, host)
    return [measured[i] for i in range(len(logits))]


def _to_host(tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Bring tensors of any types to the host in one transfer."""
    if len(tensors) == 1:
        return [tensors[0].cpu().numpy()]
    parts = [tensor.contiguous().view(torch.uint8).flatten() for tensor in tensors]
    together = torch.cat(parts).cpu()
    pieces = together.split([len(part) for part in parts])
    return [
        piece.view(tensor.dtype).reshape(tensor.shape).numpy()
        for piece, tensor in zip(pieces, tensors, strict=True)
    ]


def _measure_on_cpu(
    logits: Sequence[torch.Tensor],
    truths: Sequence[torch.Tensor],
    backbone: str,
    prediction: Prediction | None,
    low_sums: torch.Tensor | None,
    fetch: Fetch | None,
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
        host = None if fetch is None else fetch(mask[None])[0].numpy()
        measured.append(MeasuredMask(mask, pixels, shared, host))
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
