"""Check numbers and corners that a file gives, and draw polygons and ellipses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg_gym.cases.drawn.filling import fill
from medseg_gym.cases.files.defects import Damaged

POLYGON, ELLIPSE, UNION = "polygon", "ellipse", "union"


def number(value: Any, what: str, file: str, place: str) -> float:
    """Return a finite number.

    Args:
        value: From a file.
        what: Name of it, for the error.
        file: Path relative to the root.
        place: Where inside of it.

    Raises:
        Damaged: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Damaged(file, f"{what} is {str(value)[:40]!r}, expected a number", place)
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Damaged(file, f"{what} is {str(value)[:40]}, expected a finite number", place)


def whole(value: Any, what: str, file: str, place: str) -> int:
    """Return a whole number of at least 1, as a side of an image.

    Raises:
        Damaged: It is none.
    """
    side = number(value, what, file, place)
    if side < 1 or side != int(side):
        raise Damaged(file, f"{what} is {value}, expected a whole number of pixels", place)
    return int(side)


def ring(values: Any, file: str, place: str) -> list[float]:
    """Return the corners of a closed polygon, x and y in turn.

    Args:
        values: A flat list of numbers.
        file: Path relative to the root, for the error.
        place: Where inside of it.

    Raises:
        Damaged: No list, an odd count, fewer than three corners, or something that is no finite
            number.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise Damaged(file, f"a polygon is {str(values)[:40]!r}, expected a list", place)
    if len(values) % 2:
        raise Damaged(file, f"a polygon has an odd number of coordinates ({len(values)})", place)
    if len(values) < 6:
        raise Damaged(
            file, f"a polygon has {len(values) // 2} corners; three are needed, remove it", place
        )
    return [number(value, "a coordinate", file, place) for value in values]


def corners(points: Any, file: str, place: str) -> list[float]:
    """Return x and y in turn of a list of pairs.

    Raises:
        Damaged: Something else.
    """
    if not isinstance(points, list):
        raise Damaged(file, f"its points are {str(points)[:40]!r}, expected a list", place)
    flat: list[float] = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2:
            raise Damaged(file, f"a point is {str(point)[:40]!r}, expected [x, y]", place)
        flat += (number(value, "a coordinate", file, place) for value in point)
    return flat


def polygon(rings: list[list[float]]) -> list[Any]:
    """Return the shape of a polygon; what lies in an even number of its rings is outside."""
    return [POLYGON, rings]


def box(left: float, top: float, right: float, bottom: float) -> list[Any]:
    """Return the shape of a box."""
    return polygon([[left, top, right, top, right, bottom, left, bottom]])


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> list[Any]:
    """Return the shape of an ellipse: centre, radii, and degrees clockwise."""
    return [ELLIPSE, x, y, across, down, turn]


def extent(shape: list[Any]) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of a polygon or an ellipse."""
    if shape[0] == ELLIPSE:
        _, x, y, across, down, _ = shape
        reach = max(across, down)
        return x - reach, y - reach, x + reach, y + reach
    xs = [x for one in shape[1] for x in one[::2]]
    ys = [y for one in shape[1] for y in one[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def turned(flat: list[float], degrees: float) -> list[float]:
    """Return corners turned clockwise about the middle of their box."""
    xs, ys = np.array(flat[::2]), np.array(flat[1::2])
    x, y = (xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across = x + (xs - x) * cosine - (ys - y) * sine
    down = y + (xs - x) * sine + (ys - y) * cosine
    return [float(value) for pair in zip(across, down, strict=True) for value in pair]


def draw_shape(shape: list[Any], height: int, width: int) -> np.ndarray:
    """Return the pixels whose centres lie inside a polygon or an ellipse.

    Args:
        shape: From `polygon`, `box` or `ellipse`.
        height: Rows of the image.
        width: Columns.

    Returns:
        (H, W) bool.
    """
    if shape[0] == ELLIPSE:
        _, x, y, across, down, turn = shape
        rows, columns = np.mgrid[:height, :width] + 0.5
        cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        along = ((columns - x) * cosine + (rows - y) * sine) / across
        beside = ((rows - y) * cosine - (columns - x) * sine) / down
        return np.asarray(along**2 + beside**2 <= 1)
    mask = np.zeros((height, width), bool)
    for one in shape[1]:
        points = np.asarray(one, float).reshape(-1, 2)[:, ::-1] - 0.5
        mask ^= fill(points, height, width)
    return mask
