"""Polygons of a mask, which fill to that very mask.

The outlines at level 0.5 (marching squares, scikit-image) run midway between the centres of pixels
that differ, and so through no centre: filled by the rule of this room, they give the mask back.
"""

from __future__ import annotations

import numpy as np
from skimage.measure import find_contours

Ring = list[float]


def outlines(mask: np.ndarray) -> list[list[Ring]]:
    """Return the outlines of each part of a mask, its holes behind it.

    Args:
        mask: (H, W) bool.

    Returns:
        For each part (connected by sides) its rings, x and y in turn, in pixels.
    """
    return [[_flat(ring) for ring in rings] for rings in _parts(mask)]


def single_outlines(mask: np.ndarray) -> list[Ring]:
    """Return one outline for each part of a mask, with a cut of no width to each of its holes.

    Such an outline runs along the cut twice, so that the even-odd rule does not see it.

    Args:
        mask: (H, W) bool.

    Returns:
        A ring for each part, x and y in turn, in pixels.
    """
    return [_flat(_joined(rings)) for rings in _parts(mask)]


def _parts(mask: np.ndarray) -> list[list[np.ndarray]]:
    """Rings in the grid of pixel centres, row and column, not closed by a repeated corner."""
    padded = np.pad(mask, 1).astype(np.float64)
    rings = [ring[:-1] - 1 for ring in find_contours(padded, 0.5)]
    outer = [ring for ring in rings if _area(ring) > 0]
    holes = [ring for ring in rings if _area(ring) <= 0]
    parts = [[ring] for ring in outer]
    if not holes:
        return parts
    owner = _owner_of_pixels(mask, outer)
    for hole in sorted(holes, key=lambda ring: ring[:, 0].min()):
        row, column = _above(hole)
        parts[owner[row, column]].append(hole)
    return parts


def _owner_of_pixels(mask: np.ndarray, outer: list[np.ndarray]) -> np.ndarray:
    """Number of the outer ring around each pixel of the mask."""
    from scipy.ndimage import label

    components, count = label(mask)
    number = np.zeros(count + 1, np.intp)
    for index, ring in enumerate(outer):
        top = ring[np.lexsort((ring[:, 1], ring[:, 0]))[0]]  # half a pixel above its first pixel
        number[components[round(top[0] + 0.5), round(top[1])]] = index
    return np.asarray(number[components])


def _above(hole: np.ndarray) -> tuple[int, int]:
    """Row and column of the pixel of the mask right above a hole."""
    top = hole[np.lexsort((hole[:, 1], hole[:, 0]))[0]]
    return round(top[0] - 0.5), round(top[1])


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """Splice holes into the outer ring, from their tops straight up to what is there."""
    whole = [tuple(corner) for corner in rings[0]]
    for hole in rings[1:]:  # from the top down: what lies above is spliced in already
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        row, column = (float(side) for side in hole[start])
        at = max(
            (corner[0], index)
            for index, corner in enumerate(whole)
            if corner[1] == column and corner[0] < row
        )[1]
        turned = [tuple(corner) for corner in np.roll(hole, -start, axis=0)]
        whole[at + 1 : at + 1] = [*turned, turned[0], whole[at]]
    return np.array(whole)


def _area(ring: np.ndarray) -> float:
    rows, columns = ring[:, 0], ring[:, 1]
    return float(np.sum(columns * np.roll(rows, -1) - np.roll(columns, -1) * rows))


def _flat(ring: np.ndarray) -> Ring:
    """Leave out corners on straight lines, and count from the corner of the first pixel."""
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    to, on = ring - before, after - ring
    cross = to[:, 0] * on[:, 1] - to[:, 1] * on[:, 0]
    straight = (cross == 0) & ((to * on).sum(axis=1) > 0)
    kept = ring[~straight] + 0.5
    return [float(value) for value in kept[:, ::-1].ravel()]
