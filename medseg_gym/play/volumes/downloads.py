"""The mask of a volume as a file on the scan's own grid."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes.geometry import VolumeGeometry
from medseg_gym.cases.writers.volume_masks import write_nifti_mask, write_segmentation


class MaskFile(NamedTuple):
    """A file to download: its bytes, its name, its media type."""

    content: bytes
    name: str
    media_type: str


def formats_of(case: VolumeCase) -> list[str]:
    """Return the formats that a mask can have: "nifti", and "seg" where the scan is DICOM."""
    return ["nifti", *(["seg"] if case.geometry and case.geometry.frames else [])]


def mask_file(case: VolumeCase, mask: np.ndarray, kind: str) -> MaskFile:
    """Write a mask; what is written on the way is removed.

    Args:
        case: The volume.
        mask: (D, H, W) bool.
        kind: One of `formats_of`.

    Raises:
        CaseError: A SEG of an empty mask, or of a scan that is not DICOM.
    """
    geometry = case.geometry or _grid(case)
    with TemporaryDirectory(prefix="medseg-mask-") as folder:
        path = Path(folder) / ("mask.dcm" if kind == "seg" else "mask.nii.gz")
        if kind == "seg":
            write_segmentation(path, mask, geometry, case.target)
        else:
            write_nifti_mask(path, mask, geometry)
        media_type = "application/dicom" if kind == "seg" else "application/gzip"
        return MaskFile(path.read_bytes(), path.name, media_type)


def _grid(case: VolumeCase) -> VolumeGeometry:
    """A grid for a volume that comes from no file: axial, with its spacing alone."""
    depth, row, column = case.spacing or (1.0, 1.0, 1.0)
    affine = np.diag([-column, -row, depth, 1.0])
    return VolumeGeometry.of((case.width, case.height, case.depth), affine)
