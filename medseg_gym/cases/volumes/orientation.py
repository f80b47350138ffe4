"""The radiological view of a volume's slices, whatever order its file has.

Images are laid out as the project's samples are. Axial: rows run to the patient's back, columns
to the left. Coronal: rows run to the feet, columns to the left. Sagittal: rows run to the feet,
columns to the back. Slices are numbered upwards (axial), backwards (coronal), leftwards (sagittal).
An oblique volume is shown along the nearest axes, without resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_gym.errors import CaseError

AXES = ("axial", "coronal", "sagittal")

_VIEWS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}  # slices, rows, columns run to
_POSITIVE = "RAS"  # a world coordinate grows to the right, to the front, upwards
_OPPOSITE = {"L": "R", "P": "A", "I": "S"}


@dataclass(frozen=True)
class View:
    """Mapping of the voxel axes of one volume to slices, rows and columns.

    Args:
        axis: "axial", "coronal" or "sagittal".
        order: Voxel axes that give slices, rows and columns, in this order.
        flips: Whether slices, rows and columns run against their voxel axis.
        shape: Slices, rows and columns.
        spacing: Millimetres between slices, rows and columns.
    """

    axis: str
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    def stored_index(self, index: int) -> int:
        """Index along the voxel axis `order[0]` of slice `index` (both from 0)."""
        return self.shape[0] - 1 - index if self.flips[0] else index

    def corners(self, affine: np.ndarray) -> np.ndarray:
        """Positions of the eight corner voxels, in the order of slices, rows and columns.

        Args:
            affine: (4, 4) float of the volume, in mm.

        Returns:
            (8, 3) float, in mm.
        """
        ends = np.zeros((8, 4))
        ends[:, 3] = 1.0
        for place, (voxel, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            last = np.arange(8) // 2**place % 2 == 1
            ends[:, voxel] = (last ^ flip) * (self.shape[place] - 1)
        return np.asarray((ends @ affine.T)[:, :3])

    def plane(self, stored: np.ndarray) -> np.ndarray:
        """Return a slice as it is shown.

        Args:
            stored: 2-D array with the two remaining voxel axes in the file's order.

        Returns:
            (H, W) view of the same array.
        """
        if self.order[1] > self.order[2]:
            stored = stored.T
        if self.flips[1]:
            stored = stored[::-1]
        return stored[:, ::-1] if self.flips[2] else stored


def view_of(shape: tuple[int, ...], affine: np.ndarray, axis: str) -> View:
    """Return the view along `axis` of a volume.

    Args:
        shape: Three voxel counts.
        affine: (4, 4) float, voxel indices to millimetres right, front, up (nibabel's RAS+).
        axis: One of `AXES`.

    Raises:
        CaseError: An unknown axis, or an affine without three directions.
    """
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    if axis not in AXES:
        raise CaseError(f"unknown axis {axis!r}; use one of {', '.join(AXES)}")
    check_affine(affine)
    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise CaseError(f"the affine has no three independent directions: {affine[:3].tolist()}")
    sizes = voxel_sizes(affine)
    order, flips = [], []
    for direction in _VIEWS[axis]:
        world = _POSITIVE.index(_OPPOSITE.get(direction, direction))
        voxel = int(np.flatnonzero(orientation[:, 0] == world)[0])
        order.append(voxel)
        against = bool(orientation[voxel, 1] < 0)
        flips.append(against is not (direction in _OPPOSITE))
    return View(
        axis,
        (order[0], order[1], order[2]),
        (flips[0], flips[1], flips[2]),
        (shape[order[0]], shape[order[1]], shape[order[2]]),
        (float(sizes[order[0]]), float(sizes[order[1]]), float(sizes[order[2]])),
    )


def check_affine(affine: np.ndarray) -> None:
    """Refuse an affine that no geometry can be read from.

    Raises:
        CaseError: Numbers that are not finite, or directions that span no volume.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise CaseError(f"the affine is not a finite 4 x 4 matrix: {affine.tolist()}")
    columns = affine[:3, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (lengths > 0).all() or abs(np.linalg.det(columns / lengths)) < 1e-3:
        raise CaseError(f"the affine has no three independent directions: {affine[:3].tolist()}")
