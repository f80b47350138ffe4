"""The challenge's click: the middle of the largest error of a class, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import ndimage

SEED = 42
LIMIT = 60_000_000
"""Voxels of a padded crop; a larger one is reduced twofold before distances are measured."""

Kind = Literal["fg", "bg"]


@dataclass
class ClassClicks:
    """Clicks of one class so far.

    Args:
        foreground: Voxels (slice, row, column) that were missed.
        background: Voxels that were wrongly included.
        order: Kind of each iteration's click; None where there was no error left.
    """

    foreground: list[tuple[int, int, int]] = field(default_factory=list)
    background: list[tuple[int, int, int]] = field(default_factory=list)
    order: list[Kind | None] = field(default_factory=list)

    def add(self, click: tuple[Kind, tuple[int, int, int]] | None) -> None:
        """Append the click of an iteration."""
        self.order.append(click[0] if click else None)
        if click:
            (self.foreground if click[0] == "fg" else self.background).append(click[1])

    def as_dict(self) -> dict[str, list[list[int]]]:
        """Return them as the challenge's files hold them."""
        return {
            "fg": [list(one) for one in self.foreground],
            "bg": [list(one) for one in self.background],
        }


def next_click(
    truth: np.ndarray, prediction: np.ndarray, limit: int = LIMIT
) -> tuple[Kind, tuple[int, int, int]] | None:
    """Return the next click of one class.

    The largest 26-connected component of the error counts (of equal ones that whose first voxel
    comes first, slice by slice); among its voxels that lie deepest, by the Euclidean distance in
    voxels to anything else, one is drawn with a fixed seed. Beyond the volume there is no error.

    Args:
        truth: (D, H, W) bool.
        prediction: (D, H, W) bool.
        limit: See `LIMIT`.

    Returns:
        "fg" where the class was missed, else "bg", and the voxel (slice, row, column); None
        without an error.
    """
    error = truth != prediction
    bounds = ndimage.find_objects(error.view(np.uint8))
    if not bounds or bounds[0] is None:
        return None
    outer = bounds[0]
    parts, count = ndimage.label(error[outer], np.ones((3, 3, 3)))
    largest = 1
    if count > 1:
        largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1  # the first of equal ones
    inner = ndimage.find_objects(parts, largest)[largest - 1]
    component = parts[inner] == largest
    del parts
    deepest = _deepest(component, limit)
    corner = [a.start + b.start for a, b in zip(outer, inner, strict=True)]
    chosen = deepest[np.random.RandomState(SEED).choice(len(deepest))] + corner
    voxel = (int(chosen[0]), int(chosen[1]), int(chosen[2]))
    return ("fg" if truth[voxel] else "bg"), voxel


def _deepest(component: np.ndarray, limit: int) -> np.ndarray:
    """Return the voxels of largest depth in the order of the array, n x 3 int."""
    deepest_depth = 0.0
    deepest: list[np.ndarray] = []
    for index, depths in enumerate(_depths(component, limit)):
        highest = float(depths.max())
        if highest > deepest_depth:
            deepest_depth, deepest = highest, []
        if highest == deepest_depth and highest > 0:
            places = np.argwhere(depths == highest)
            deepest.append(np.column_stack([np.full(len(places), index), places]))
    return np.concatenate(deepest)


def _depths(component: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """Yield the depth of a component slice by slice, (H, W) float; 0 outside of it."""
    padding = [max(1, int(side * 0.25)) for side in component.shape]
    padded = np.pad(component, [(one, one) for one in padding])
    step = 1
    if padded.size > limit:
        step, padded = 2, _halved(padded)
    distance = ndimage.distance_transform_edt(padded)
    places = [
        (np.arange(side) + one) // step for side, one in zip(component.shape, padding, strict=True)
    ]
    for index, plane in enumerate(component):
        yield distance[places[0][index]][np.ix_(places[1], places[2])] * plane


def _halved(volume: np.ndarray) -> np.ndarray:
    """Return the maximum of each 2 x 2 x 2 block; the volume goes on with False."""
    depth, height, width = (-(-side // 2) for side in volume.shape)
    result = np.zeros((depth, height, width), bool)
    for z in (0, 1):
        for y in (0, 1):
            for x in (0, 1):
                part = volume[z::2, y::2, x::2]
                result[: part.shape[0], : part.shape[1], : part.shape[2]] |= part
    return result
