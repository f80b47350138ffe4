"""Grids of pixels in space, described for errors about labels that lie elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WAY_OUT = "resample=nearest carries the labels over to the grid of the image"


@dataclass(frozen=True, eq=False)
class Grid:
    """Geometry of the pixels of a slice, or of a stack of slices.

    Args:
        size: Slices, rows, columns.
        spacing: Millimetres between slices, rows and columns.
        origin: (3,) float, centre of the first voxel in mm.
        directions: (3, 3) float, unit vectors along which slices, rows and columns are counted.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: np.ndarray
    directions: np.ndarray

    def plane(self) -> str:
        """Size and spacing of a slice, as "24 x 32 at 2 mm"."""
        rows, columns = (f"{value:.4g}" for value in self.spacing[1:])
        spacing = rows if rows == columns else f"{rows} x {columns}"
        return f"{self.size[1]} x {self.size[2]} at {spacing} mm"


def name_grids(labels: Grid, image: Grid) -> str:
    """Say what both grids are: size and spacing always, the rest where it differs.

    Args:
        labels: Grid of the labels.
        image: Grid of the image.

    Returns:
        "the labels are 24 x 32 at 2 mm, the image is 48 x 64 at 1 mm", with numbers of slices,
        first voxels and directions added as needed.
    """
    grids = (labels, image)
    texts = [[grid.plane()] for grid in grids]
    if max(labels.size[0], image.size[0]) > 1:
        for text, grid in zip(texts, grids, strict=True):
            text.append(f"{grid.size[0]} slices {grid.spacing[0]:.4g} mm apart")
    if np.linalg.norm(labels.origin - image.origin) > 0.01 * min(image.spacing):
        for text, grid in zip(texts, grids, strict=True):
            text.append(f"first pixel at {_vector(grid.origin)} mm")
    if np.abs(labels.directions - image.directions).max() > 1e-3:
        for text, grid in zip(texts, grids, strict=True):
            _, rows, columns = grid.directions
            text.append(f"rows counted along {_vector(rows)}, columns along {_vector(columns)}")
    of_labels, of_image = (", ".join(text) for text in texts)
    return f"the labels are {of_labels}; the image is {of_image}"


def _vector(numbers: np.ndarray) -> str:
    return f"({', '.join(f'{float(number) + 0.0:.4g}' for number in numbers)})"
