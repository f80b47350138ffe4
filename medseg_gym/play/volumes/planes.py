"""Two planes across the slices of a volume, with its mask: where one is, seen from the side."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes import SliceState, VolumeState
from medseg_gym.play.catalog import axis_of

_PLANES = {
    "axial": (("coronal", "up"), ("sagittal", "up")),
    "coronal": (("axial", "down"), ("sagittal", "right")),
    "sagittal": (("axial", "right"), ("coronal", "right")),
}
"""By the way a volume is cut: names of the planes at a row and at a column, and where slice numbers
grow to when they are shown as radiologists do (see `cases.volumes.orientation`)."""


def describe_planes(
    case: VolumeCase, state: VolumeState, row: int, column: int
) -> list[dict[str, Any]]:
    """Describe the planes at a row and at a column of the slices.

    Args:
        case: The volume.
        state: Masks of its slices.
        row: Row of a slice, 0 <= row < H.
        column: Column of a slice, 0 <= column < W.

    Returns:
        Per plane its `name`, `image` and `mask` (base64 of PNG; None where it is empty), where
        slice numbers grow to (`along`), and how many pixels high one is as against its width
        (`aspect`).
    """
    spacing = case.spacing or (1.0, 1.0, 1.0)
    names = _PLANES[axis_of(case)]
    masks = _row_masks(case, state.slices, row), _column_masks(case, state.slices, column)
    images = case.image[:, row], case.image[:, :, column]
    described = []
    for (name, along), image, mask, across in zip(
        names, images, masks, (spacing[2], spacing[1]), strict=True
    ):
        down, right = spacing[0], across
        if along == "right":
            image, mask = np.swapaxes(image, 0, 1), mask.T
            down, right = right, down
        elif along == "up":
            image, mask = image[::-1], mask[::-1]
        described.append(
            {
                "name": name,
                "along": along,
                "aspect": down / right,
                "image": _text(np.ascontiguousarray(image)),
                "mask": _text(np.ascontiguousarray(mask)) if mask.any() else None,
            }
        )
    return described


def _text(pixels: np.ndarray) -> str:
    return base64.b64encode(png_bytes(pixels)).decode()


def _row_masks(case: VolumeCase, slices: Mapping[int, SliceState], row: int) -> np.ndarray:
    """(D, W) bool."""
    mask = np.zeros((case.depth, case.width), bool)
    for index, one in slices.items():
        mask[index] = np.unpackbits(one.bits[row], count=case.width).view(bool)
    return mask


def _column_masks(case: VolumeCase, slices: Mapping[int, SliceState], column: int) -> np.ndarray:
    """(D, H) bool."""
    mask = np.zeros((case.depth, case.height), bool)
    for index, one in slices.items():
        mask[index] = (one.bits[:, column // 8] >> (7 - column % 8)) & 1
    return mask
