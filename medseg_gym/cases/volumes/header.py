"""Header of a volume file, checked before any of its voxels is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg_gym.cases.volumes.orientation import check_affine
from medseg_gym.errors import CaseError

MAX_DECODED = 2 << 30
"""Bytes of a volume that must be decoded as a whole, at most: all but uncompressed NIfTI."""

MAX_PLANE = 1 << 28
"""Voxels that a slice may have, at most (16 384 x 16 384)."""

DEFLATE_RATIO = 1032
"""Largest ratio of gzip's compression: a header that promises more than that lies."""


@dataclass(frozen=True)
class Segment:
    """A label that the file itself names (3D Slicer's .seg.nrrd).

    Args:
        channel: Component of the voxels that holds it (overlapping segments lie in layers).
        value: Voxel value.
        name: Name of the segment.
    """

    channel: int
    value: int
    name: str


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """Geometry and storage of a volume, without its voxels.

    Args:
        path: The file.
        shape: Voxel counts along the file's three axes.
        affine: (4, 4) float64, voxel indices to millimetres right, front, up (nibabel's RAS+).
        dtype: Type of the stored voxels.
        channels: Values per voxel: components, or volumes along a fourth axis.
        compressed: Must be decoded as a whole.
        slope: Value = stored * slope + intercept.
        intercept: See `slope`.
        segments: Labels that the file names.
        reader: "nibabel" or "SimpleITK".
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    channels: int
    compressed: bool
    slope: float = 1.0
    intercept: float = 0.0
    segments: tuple[Segment, ...] = ()
    reader: str = field(default="nibabel", kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes of one channel as stored."""
        return int(np.prod([int(n) for n in self.shape], dtype=object)) * self.dtype.itemsize

    def scaled(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored voxels to the values they stand for."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored
        return stored * np.float64(self.slope) + np.float64(self.intercept)


def check_header(header: VolumeHeader, data_bytes: int) -> None:
    """Refuse a header that cannot be true, or that promises more than is read.

    Args:
        header: As the reader found it.
        data_bytes: Bytes of the file, or of the files that hold the voxels.

    Raises:
        CaseError: Without the path; the caller adds it.
    """
    shape = " x ".join(str(n) for n in header.shape)
    if min(*header.shape, header.channels) < 1:
        raise CaseError(f"the header promises {shape} voxels: an axis is empty")
    if header.dtype.kind not in "iufb":
        raise CaseError(f"voxels of type {header.dtype} are not numbers on a grey scale")
    promised = header.nbytes * header.channels
    if not header.compressed and promised > data_bytes:
        raise CaseError(
            f"the header promises {shape} voxels ({promised} bytes) but the file has "
            f"{data_bytes} bytes: it is truncated or its header is damaged; copy it again"
        )
    if header.compressed and promised > DEFLATE_RATIO * data_bytes + 4096:
        raise CaseError(
            f"the header promises {shape} voxels ({promised} bytes), more than the {data_bytes} "
            "compressed bytes of the file can hold; it is truncated or its header is damaged"
        )
    if (header.compressed or header.reader != "nibabel") and promised > MAX_DECODED:
        raise CaseError(
            f"the header promises {shape} voxels, {promised / 2**30:.1f} GiB unpacked, more than "
            f"{MAX_DECODED / 2**30:.0f} GiB: store it as .nii, then single slices are read"
        )
    if max(header.shape[0] * header.shape[1], header.shape[1] * header.shape[2]) > MAX_PLANE:
        raise CaseError(f"the header promises {shape} voxels: slices of over {MAX_PLANE} pixels")
    check_affine(header.affine)
