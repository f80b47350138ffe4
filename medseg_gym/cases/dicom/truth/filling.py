"""Turn closed contours of one slice into a mask: each is filled, then they are combined.

The standard knows two ways to draw a hole (DICOM PS3.3 C.8.8.6.3): a keyhole, one contour that runs
in through a channel of no width and round the hole, and contours of type CLOSEDPLANAR_XOR. Contours
of type CLOSED_PLANAR add up, however they overlap. Some programs draw holes as plain contours
inside others; nothing in the file tells those from islands drawn twice, so that reading is an
option.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gym.cases.drawn.filling import fill

__all__ = ["fill", "nesting", "region_mask"]


def region_mask(
    outlines: Sequence[np.ndarray],
    exclusive: Sequence[bool],
    rows: int,
    columns: int,
    nested_holes: bool = False,
) -> np.ndarray:
    """Combine the contours of one region in one plane.

    The union of the plain contours, and then the exclusive disjunction ("XOR") of that with each
    exclusive contour, in any order: a file that marks only the holes as exclusive gets its holes.

    Args:
        outlines: (N, 2) float arrays, rows and columns of the corners.
        exclusive: Which of them are of type CLOSEDPLANAR_XOR.
        rows: Of the mask.
        columns: Of the mask.
        nested_holes: Take plain contours strictly inside another plain one as its holes, and what
            lies in a hole as an island again.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros((rows, columns), bool)
    plain = [outline for outline, xor in zip(outlines, exclusive, strict=True) if not xor]
    if nested_holes and len(plain) > 1:
        mask |= _with_holes(plain, rows, columns)
    else:
        for outline in plain:
            mask |= fill(outline, rows, columns)
    for outline, xor in zip(outlines, exclusive, strict=True):
        if xor:
            mask ^= fill(outline, rows, columns)
    return mask


def _with_holes(outlines: list[np.ndarray], rows: int, columns: int) -> np.ndarray:
    """Return contours at an even depth, each without those one level deeper inside it."""
    inside = nesting(outlines)
    depth = _depths(inside)
    filled = [fill(outline, rows, columns) for outline in outlines]
    mask = np.zeros((rows, columns), bool)
    for outer in np.flatnonzero(depth % 2 == 0):
        own = filled[outer].copy()
        for inner in np.flatnonzero(inside[:, outer] & (depth == depth[outer] + 1)):
            own &= ~filled[inner]
        mask |= own
    return mask


def nesting(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """Find contours strictly inside others: no corner and no edge touches the outer one.

    Args:
        outlines: N arrays of shape (n, 2), rows and columns of the corners.

    Returns:
        (N, N) bool, [inner, outer].
    """
    outlines = [np.round(outline, 6) for outline in outlines]  # shared edges stay shared
    low = np.array([outline.min(axis=0) for outline in outlines])
    high = np.array([outline.max(axis=0) for outline in outlines])
    within: np.ndarray = np.all((low[:, None] > low[None]) & (high[:, None] < high[None]), axis=2)
    for inner, outer in np.argwhere(within):
        within[inner, outer] = _is_inside(outlines[inner], outlines[outer])
    return within


def _depths(inside: np.ndarray) -> np.ndarray:
    """Return the length of the longest chain of contours around each one."""
    depth = np.zeros(len(inside), int)
    for number in np.argsort(inside.sum(axis=1), kind="stable"):  # outer ones come first
        around = np.flatnonzero(inside[number])
        depth[number] = 1 + depth[around].max() if around.size else 0
    return depth


def _is_inside(inner: np.ndarray, outer: np.ndarray) -> bool:
    """Return whether `inner` touches no edge of `outer` and its first corner is inside."""
    a, b = inner, np.roll(inner, -1, axis=0)
    start, end = outer, np.roll(outer, -1, axis=0)
    row, column = inner[0]
    crosses = (start[:, 0] <= row) != (end[:, 0] <= row)
    share = (row - start[crosses, 0]) / (end[crosses, 0] - start[crosses, 0])
    at = start[crosses, 1] + share * (end[crosses, 1] - start[crosses, 1])
    if np.count_nonzero(at > column) % 2 == 0:
        return False
    low, high = np.minimum(start, end), np.maximum(start, end)
    near = ((low <= inner.max(axis=0)) & (high >= inner.min(axis=0))).all(axis=1)
    start, end = start[near], end[near]
    for i in range(0, len(a), 256):  # bounds the memory that long contours take
        if _touch(a[i : i + 256, None], b[i : i + 256, None], start[None], end[None]).any():
            return False
    return True


def _touch(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Find segments a-b and c-d with a point in common; parallel ones count as apart.

    Segments that lie on each other share their ends with neighbours that are not parallel.
    """

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        cross = (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1])
        return np.asarray(cross - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0]))

    first = side(a, b, c) * side(a, b, d) <= 0
    second = side(c, d, a) * side(c, d, b) <= 0
    along = side(a, b, c) == side(a, b, d)
    return np.asarray(first & second & ~along)
