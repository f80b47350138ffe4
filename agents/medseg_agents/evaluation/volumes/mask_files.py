"""Final masks on disk: of volumes on the grid of their scan, of images as PNG."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_gym.cases import VolumeCase
from medseg_gym.cases.volumes import VolumeGeometry
from medseg_gym.cases.writers.case_writer import slug
from medseg_gym.cases.writers.volume_masks import (
    write_nifti_mask,
    write_segmentation,
    write_slices,
)
from medseg_gym.storage.atomic_write import atomic_write

INDEX = "masks.json"


@dataclass
class MaskFolder:
    """Folder of the masks of one run; `masks.json` in it says which file is whose.

    Args:
        path: Made when the first mask is written.
        forms: Of volumes: "nifti", "seg", "png".
        keep_identifiers: See `write_segmentation`.

    Attributes:
        files: Paths relative to the folder, by key of the volume or the case.
        not_written: Forms that a mask could not have, counted by reason.
    """

    path: Path
    forms: Sequence[str] = ("nifti",)
    keep_identifiers: bool = False
    files: dict[str, list[str]] = field(default_factory=dict)
    not_written: dict[str, int] = field(default_factory=dict)

    def write_volume(self, case: VolumeCase, mask: np.ndarray) -> None:
        """Write the mask of a volume in every form that it can have.

        Args:
            case: The volume.
            mask: (D, H, W) bool.

        Raises:
            MedSegError: The disk refuses.
        """
        name = _file_name(case.key)
        files = self.files[case.key] = []
        if "nifti" in self.forms:
            grid = case.geometry or _plain_geometry(case)
            if grid is None:
                self._count("no NIfTI of a volume without spacing")
            else:
                write_nifti_mask(self.path / f"{name}.nii.gz", mask, grid)
                files.append(f"{name}.nii.gz")
        if "seg" in self.forms:
            if case.geometry is None or not case.geometry.frames:
                self._count("no SEG of a volume that is not DICOM")
            elif not mask.any():
                self._count("no SEG of an empty mask")
            else:
                file = self.path / f"{name}.dcm"
                keep = self.keep_identifiers
                write_segmentation(file, mask, case.geometry, case.target, keep)
                files.append(file.name)
        if "png" in self.forms:
            write_slices(self.path / name, mask)
            files.append(f"{name}/")

    def write_images(self, records: Sequence[CaseRecord]) -> None:
        """Write the masks of the records that are images of their own, as PNG."""
        for record in records:
            if record.mask and not record.volume:
                name = f"{_file_name(record.case)}.png"
                atomic_write(self.path / name, base64.b64decode(record.mask))
                self.files[record.case] = [name]

    def close(self) -> None:
        """Write the index."""
        write_json({"files": self.files, "not_written": self.not_written}, self.path / INDEX)

    def _count(self, reason: str) -> None:
        self.not_written[reason] = self.not_written.get(reason, 0) + 1


def _file_name(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{slug(key)}-{digest}"


def _plain_geometry(case: VolumeCase) -> VolumeGeometry | None:
    """Return a grid of its own for a volume that has no file's: axial slices from the origin up."""
    if case.spacing is None:
        return None
    depth, row, column = case.spacing
    affine = np.diag([-column, -row, depth, 1.0])
    return VolumeGeometry.of((case.width, case.height, case.depth), affine)
