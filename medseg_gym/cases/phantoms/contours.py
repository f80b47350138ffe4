"""Irregular outlines in pixel coordinates, and the canvas that fills them.

Outlines are closed polygons, (P, 2) float arrays of (x, y). They are low-frequency Fourier radii
that are then tapered, bent, squeezed and turned, so that none is a plain ellipse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIZE = 256
"""Side of every phantom image in pixels."""

_POINTS = 80
_ANGLE = np.linspace(0.0, 2.0 * np.pi, _POINTS, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_ORDERS = np.arange(2, 24)
_BASIS = np.concatenate([np.cos(np.outer(_ORDERS, _ANGLE)), np.sin(np.outer(_ORDERS, _ANGLE))])

Point = Sequence[float] | np.ndarray


def blob(
    rng: np.random.Generator,
    centre: Point,
    radius: float,
    aspect: float = 1.0,
    angle: float = 0.0,
    rough: float = 0.1,
    bend: float = 0.0,
    taper: float = 0.0,
    orders: tuple[int, int] = (2, 6),
) -> np.ndarray:
    """Make a smooth irregular outline.

    Args:
        rng: Source of the Fourier coefficients.
        centre: (x, y) in pixels.
        radius: Half length along the main axis in pixels.
        aspect: Half width divided by half length.
        angle: Direction of the main axis in radians, clockwise in the image.
        rough: Size of the radial ripple, 0 (none) to about 0.4.
        bend: Curvature of the main axis: about 0.5 makes a bean, 1 a crescent.
        taper: How much narrower the far end is: 0 (not) to 0.8 (a wedge).
        orders: First and last angular frequency of the ripple, within 2..23.

    Returns:
        (80, 2) outline.
    """
    first, last = orders
    count = last - first + 1
    weight = 0.8 * rough * (first / np.arange(first, last + 1)) ** 1.2
    coefficients = rng.standard_normal((2, count)) * weight
    low, sines = first - 2, len(_ORDERS)
    ripple = coefficients[0] @ _BASIS[low : low + count]
    ripple += coefficients[1] @ _BASIS[sines + low : sines + low + count]
    x, y = (_CIRCLE * np.clip(1.0 + ripple, 0.4, 1.6)[:, None]).T
    y = y * (1.0 - taper * x) * aspect + bend * (x * x - 0.4)
    contour: np.ndarray = turn(np.stack([x, y], axis=1) * radius, angle) + np.asarray(
        centre, dtype=float
    )
    return contour


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate (P, 2) points about the origin by `angle` radians (clockwise in the image)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = points[:, 0], points[:, 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


def scaled(outline: np.ndarray, factor: float, grow: float = 0.0) -> np.ndarray:
    """Scale an outline about its mean point, then push it outwards by `grow` pixels."""
    centre = outline.mean(axis=0)
    offset = outline - centre
    if grow:
        length = np.sqrt((offset**2).sum(axis=1, keepdims=True))
        offset = offset * (1.0 + grow / np.maximum(length, 1.0))
    contour: np.ndarray = centre + offset * factor
    return contour


def mirrored(outline: np.ndarray, x: float) -> np.ndarray:
    """Reflect an outline at the vertical line `x`."""
    return np.stack([2.0 * x - outline[:, 0], outline[:, 1]], axis=1)


def walk(
    rng: np.random.Generator,
    start: Point,
    angle: float,
    length: float,
    wiggle: float = 0.15,
    curl: float = 0.0,
    step: float = 4.0,
) -> np.ndarray:
    """Make a smoothly winding line.

    Args:
        rng: Source of the turns.
        start: (x, y) in pixels.
        angle: First direction in radians.
        length: Length in pixels.
        wiggle: Standard deviation of the turn per step in radians.
        curl: Constant turn per step in radians.
        step: Distance between points in pixels.

    Returns:
        (P, 2) points, P >= 2.
    """
    steps = max(round(length / step), 1)
    turns = rng.standard_normal(steps) * wiggle + curl
    heading = angle + np.cumsum(turns)
    moves = step * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    moves = np.concatenate([np.zeros((1, 2)), moves])
    return np.asarray(start, dtype=float) + np.cumsum(moves, axis=0)


class Canvas:
    """A label map that outlines are painted on; a later one covers what is below it."""

    def __init__(self) -> None:
        self._image = Image.new("L", (SIZE, SIZE), 0)
        self._draw = ImageDraw.Draw(self._image)

    def fill(self, outline: np.ndarray, label: int) -> None:
        """Fill a closed outline with `label` (0..255)."""
        self._draw.polygon(outline.ravel().tolist(), fill=label)

    def line(self, points: np.ndarray, width: float, label: int) -> None:
        """Draw an open line of `width` pixels with `label`."""
        if width >= 5:  # thick lines of short pieces get ragged borders: draw a ribbon instead
            along = np.gradient(points, axis=0)
            along /= np.maximum(np.sqrt((along**2).sum(axis=1, keepdims=True)), 1e-6)
            aside = along[:, ::-1] * (width / 2.0, -width / 2.0)
            self.fill(np.concatenate([points + aside, (points - aside)[::-1]]), label)
            return
        self._draw.line(
            points.ravel().tolist(), fill=label, width=max(round(width), 1), joint="curve"
        )

    @property
    def labels(self) -> np.ndarray:
        """(256, 256) uint8 copy of the label map."""
        return np.array(self._image)


def filled(*outlines: np.ndarray) -> np.ndarray:
    """Return the (256, 256) bool mask of the union of closed outlines."""
    canvas = Canvas()
    for outline in outlines:
        canvas.fill(outline, 1)
    return canvas.labels > 0


def drawn(*lines: tuple[np.ndarray, float]) -> np.ndarray:
    """Return the (256, 256) bool mask of lines given as (points, width in pixels)."""
    canvas = Canvas()
    for points, width in lines:
        canvas.line(points, width, 1)
    return canvas.labels > 0


def place_in(
    rng: np.random.Generator, mask: np.ndarray, margin: float = 0.0, tries: int = 24
) -> np.ndarray:
    """Draw a random point of `mask`, if possible one at least `margin` pixels inside it.

    Args:
        rng: Source of the draw.
        mask: (H, W) bool; an empty one gives the middle of the image.
        margin: Wanted distance to the border of the mask, looked at in eight directions.
        tries: Candidates looked at before the last one is taken as it is.

    Returns:
        (x, y) in pixels.
    """
    inside = np.flatnonzero(mask)
    if inside.size == 0:
        return np.array([mask.shape[1] / 2.0, mask.shape[0] / 2.0])
    rows, columns = np.divmod(inside[rng.integers(0, inside.size, tries)], mask.shape[1])
    if margin > 0:
        step = np.round(_CIRCLE[:: _POINTS // 8] * margin).astype(int)
        y = np.clip(rows[:, None] + step[:, 1], 0, mask.shape[0] - 1)
        x = np.clip(columns[:, None] + step[:, 0], 0, mask.shape[1] - 1)
        best = int(np.argmax(mask[y, x].sum(axis=1)))
    else:
        best = 0
    return np.array([float(columns[best]), float(rows[best])])
