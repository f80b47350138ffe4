"""The tiles of a slide: where they lie, and how much of every class they show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from medseg_gym.cases.drawn.shapes import draw_shape, extent, polygon
from medseg_gym.cases.wsi.geojson import Drawing


def tile_areas(
    drawing: Drawing, size: tuple[int, int], tile: int, downsample: float
) -> dict[tuple[int, int], dict[str, list[Any]]]:
    """Count the pixels of every class on every tile; only the parts with a polygon are drawn.

    Args:
        drawing: What was drawn on the slide.
        size: (H, W) of the slide at full resolution.
        tile: Side of a tile in its own pixels.
        downsample: Pixels of full resolution a pixel of a tile.

    Returns:
        (row, column) of the tile -> class -> [pixels, numbers of its polygons]; polygons that
        overlap count once.
    """
    rows, columns = grid(size, tile, downsample)
    numbers: dict[tuple[int, int], dict[str, list[int]]] = {}
    side = tile * downsample
    for index, (label, _, shape) in enumerate(drawing.polygons):
        left, top, right, bottom = extent(shape)
        for row in range(max(0, int(top // side)), min(rows, int(bottom // side) + 1)):
            for column in range(max(0, int(left // side)), min(columns, int(right // side) + 1)):
                numbers.setdefault((row, column), {}).setdefault(label, []).append(index)
    areas: dict[tuple[int, int], dict[str, list[Any]]] = {}
    for at in sorted(numbers):
        for label, own in numbers[at].items():
            mask = draw_tile(drawing, own, at, size, tile, downsample)
            if area := int(np.count_nonzero(mask)):
                areas.setdefault(at, {})[label] = [area, own]
    return areas


def grid(size: tuple[int, int], tile: int, downsample: float) -> tuple[int, int]:
    """Return rows and columns of tiles; the last ones may be smaller."""
    height, width = scaled(size, downsample)
    return math.ceil(height / tile), math.ceil(width / tile)


def scaled(size: tuple[int, int], downsample: float) -> tuple[int, int]:
    """Return (H, W) of the slide in pixels of tiles."""
    return max(1, int(size[0] / downsample)), max(1, int(size[1] / downsample))


def tile_size(
    at: tuple[int, int], size: tuple[int, int], tile: int, downsample: float
) -> tuple[int, int]:
    """Return (H, W) of a tile, smaller at the right and lower border."""
    height, width = scaled(size, downsample)
    return min(tile, height - at[0] * tile), min(tile, width - at[1] * tile)


def draw_tile(
    drawing: Drawing,
    numbers: list[int],
    at: tuple[int, int],
    size: tuple[int, int],
    tile: int,
    downsample: float,
) -> np.ndarray:
    """Return the union of polygons on a tile.

    Args:
        drawing: What was drawn on the slide.
        numbers: Of the polygons.
        at: Row and column of the tile.
        size: (H, W) of the slide at full resolution.
        tile: Side of a tile in its own pixels.
        downsample: Pixels of full resolution a pixel of a tile.

    Returns:
        (H, W) bool.
    """
    height, width = tile_size(at, size, tile, downsample)
    mask = np.zeros((height, width), bool)
    top, left = at[0] * tile, at[1] * tile
    for number in numbers:
        moved = _moved(drawing.polygons[number][2], left, top, downsample)
        x0, y0, x1, y1 = extent(moved)
        first_row, first = max(0, math.floor(y0)), max(0, math.floor(x0))
        last_row, last = min(height, math.ceil(y1)), min(width, math.ceil(x1))
        if last_row > first_row and last > first:  # draws no more than the part with the polygon
            near = _moved(moved, first, first_row, 1.0)
            part = draw_shape(near, last_row - first_row, last - first)
            mask[first_row:last_row, first:last] |= part
    return mask


def _moved(shape: list[Any], left: float, top: float, downsample: float) -> list[Any]:
    def corners(one: list[float]) -> Iterator[float]:
        for index, value in enumerate(one):
            yield value / downsample - (top if index % 2 else left)

    return polygon([list(corners(one)) for one in shape[1]])
