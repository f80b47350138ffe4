"""Surface Dice by area, with the arithmetic of DeepMind's `surface-distance`.

A surface runs between voxel centres: each 2 x 2 x 2 neighbourhood that is neither full nor empty
holds a piece of it, whose area weighs its distance. `medseg_gym.episodes.metrics.nsd` counts border
voxels instead, so the two differ a little. The package itself is not needed: its last release
does not run with numpy 2, and its table of areas is that of marching cubes (Lorensen and Cline
1987), which scikit-image computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

TOLERANCE = 2.0
"""Millimetres."""

_BITS = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]], np.uint8)
_FULL = 255


def surface_dice_by_area(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    tolerance: float = TOLERANCE,
) -> float:
    """Return the share of both surfaces' areas that lies within a tolerance of the other surface.

    Nikolov et al. 2018, arXiv 1809.04430.

    Args:
        truth: (D, H, W) bool.
        prediction: (D, H, W) bool.
        spacing: Millimetres between slices, rows and columns.
        tolerance: Millimetres.

    Returns:
        0..1; NaN where both masks are empty, 0 where one of them is.

    Raises:
        ValueError: Masks of different shapes or not bool.
    """
    if truth.dtype != bool or prediction.dtype != bool or truth.shape != prediction.shape:
        raise ValueError(
            f"two bool masks of one shape are wanted, got {truth.dtype} {truth.shape} and "
            f"{prediction.dtype} {prediction.shape}"
        )
    bounds = ndimage.find_objects((truth | prediction).view(np.uint8))
    if not bounds or bounds[0] is None:
        return float("nan")
    areas = _areas(tuple(float(one) for one in spacing))
    codes = [_codes(mask[bounds[0]]) for mask in (truth, prediction)]
    borders = [(one != 0) & (one != _FULL) for one in codes]
    near = total = 0.0
    for here in (0, 1):
        area = areas[codes[here][borders[here]]]
        total += float(area.sum())
        other = borders[1 - here]
        if other.any() and area.size:
            distance = ndimage.distance_transform_edt(~other, sampling=spacing)[borders[here]]
            near += float(area[distance <= tolerance].sum())
    return near / total


def _codes(mask: np.ndarray) -> np.ndarray:
    """Return which of the eight voxels around each corner of a voxel are set, as bits."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([side - 1 for side in padded.shape], np.uint8)
    for z in (0, 1):
        for y in (0, 1):
            for x in (0, 1):
                part = padded[
                    z : padded.shape[0] - 1 + z,
                    y : padded.shape[1] - 1 + y,
                    x : padded.shape[2] - 1 + x,
                ]
                codes |= part * _BITS[z, y, x]
    return codes


@cache
def _areas(spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the area of the surface by code, (256,) float, in square millimetres."""
    scale = np.array([spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]])
    return np.array([np.linalg.norm(one * scale, axis=1).sum() for one in _triangles()])


@cache
def _triangles() -> tuple[np.ndarray, ...]:
    """Return the area vectors of the triangles by code, n x 3 each, for unit spacing."""
    vectors: list[np.ndarray] = []
    for code in range(_FULL + 1):
        if code in (0, _FULL):
            vectors.append(np.zeros((1, 3)))
            continue
        # DeepMind's table has the same triangles for what is inside and what is outside.
        inside = code if bin(code).count("1") <= 4 else _FULL - code
        corners = ((_BITS & inside) > 0).astype(np.float32)
        points, faces, _, _ = marching_cubes(corners, 0.5, method="lorensen")
        a, b, c = np.moveaxis(points[faces].astype(np.float64), 1, 0)
        vectors.append(np.cross(b - a, c - a) / 2)
    return tuple(vectors)
