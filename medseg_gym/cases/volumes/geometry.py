"""The grid of the file that a volume was read from: what a mask is written back onto."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_gym.cases.volumes.orientation import AXES, View, view_of
from medseg_gym.errors import CaseError

MIN_TILT = 0.1
"""Degrees: what is less comes from numbers that were rounded."""


@dataclass(frozen=True, eq=False)
class VolumeGeometry:
    """Mapping between a volume as it is shown and its voxels as a file stores them.

    Args:
        shape: Voxel counts along the file's three axes.
        affine: (4, 4) float, voxel indices to millimetres right, front, up (nibabel's RAS+).
        view: How the voxel axes become slices, rows and columns.
        path: File, or folder of a DICOM series, that the volume was read from; None for one that
            was made.
        frames: Of a DICOM series, file (relative to `path`) and number of each frame, in the order
            of the third voxel axis; else empty.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    view: View
    path: Path | None = None
    frames: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls,
        shape: tuple[int, int, int],
        affine: np.ndarray,
        axis: str = "axial",
        path: Path | None = None,
    ) -> VolumeGeometry:
        """Build from the grid of a file and the axis along which it is cut.

        Raises:
            CaseError: An unknown axis, or an affine without three directions.
        """
        return cls(shape, np.asarray(affine, float), view_of(shape, affine, axis), path)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between slices, rows and columns."""
        return self.view.spacing

    @property
    def voxel_ml(self) -> float:
        """Millilitres of a voxel; of a tilted stack less than the product of its spacings."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def tilt(self) -> float:
        """Degrees that voxel axes are off right angles, as by a tilted gantry; 0 below 0.1."""
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        slant = float(np.abs(columns.T @ columns - np.eye(3)).max())
        degrees = float(np.degrees(np.arcsin(min(slant, 1.0))))
        return degrees if degrees >= MIN_TILT else 0.0

    def stored(self, shown: np.ndarray) -> np.ndarray:
        """Return a volume in the file's order of voxels.

        Args:
            shown: (D, H, W) array, as `VolumeCase.mask` is.

        Returns:
            Array of `shape`.

        Raises:
            CaseError: Another shape than the view has.
        """
        if shown.shape != self.view.shape:
            raise CaseError(f"a volume of {self.view.shape} voxels is wanted, got {shown.shape}")
        stored: np.ndarray = shown[self._turns()].transpose(np.argsort(self.view.order))
        return stored

    def shown(self, stored: np.ndarray) -> np.ndarray:
        """Return a volume in the order of slices, rows and columns; reverses `stored`.

        Raises:
            CaseError: Another shape than the file has.
        """
        if stored.shape != self.shape:
            raise CaseError(f"a volume of {self.shape} voxels is wanted, got {stored.shape}")
        shown: np.ndarray = stored.transpose(self.view.order)[self._turns()]
        return shown

    def _turns(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.view.flips)


def longest_axis(shape: tuple[int, ...], affine: np.ndarray) -> str:
    """Return the axis along which slices lie furthest apart; "axial" where all are alike.

    Args:
        shape: Three voxel counts.
        affine: (4, 4) float, voxel indices to millimetres right, front, up.

    Raises:
        CaseError: An affine without three directions.
    """
    apart = [view_of(shape, affine, axis).spacing[0] for axis in AXES]
    largest = max(apart)
    return AXES[next(i for i, one in enumerate(apart) if one > largest * 0.999)]
