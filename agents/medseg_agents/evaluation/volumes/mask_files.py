"""Final masks on disk: of volumes on the grid of their scan, of images as PNG."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import PlayingOptions
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

    A mask of a volume is written when it comes, whole or not at all, and then stands in the index.
    One that the index has, with the same voxels and options, is not written again.

    Args:
        path: Made when the first mask is written.
        forms: Of volumes: "nifti", "seg", "png".
        keep_identifiers: See `write_segmentation`.

    Attributes:
        files: Paths relative to the folder, by key of the volume or the case.
        voxels: Digest of the voxels of every volume's mask.
        not_written: Forms that a mask could not have, counted by reason.
    """

    path: Path
    forms: Sequence[str] = ("nifti",)
    keep_identifiers: bool = False
    files: dict[str, list[str]] = field(default_factory=dict)
    voxels: dict[str, str] = field(default_factory=dict)
    not_written: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take over what an earlier call has written with the same options."""
        try:
            index = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if index.get("keep_identifiers") == self.keep_identifiers:
            self.files, self.voxels = dict(index["files"]), dict(index["voxels"])

    def write_volume(self, case: VolumeCase, mask: np.ndarray) -> None:
        """Write the mask of a volume in every form that it can have, unless it is there.

        Args:
            case: The volume.
            mask: (D, H, W) bool.

        Raises:
            MedSegError: The disk refuses.
        """
        name = _file_name(case.key)
        grid = case.geometry or _plain_geometry(case)
        writers: dict[str, Callable[[], None]] = {}
        if "nifti" in self.forms:
            if grid is None:
                self._count("no NIfTI of a volume without spacing")
            else:
                file = self.path / f"{name}.nii.gz"
                writers[file.name] = partial(write_nifti_mask, file, mask, grid)
        if "seg" in self.forms:
            if case.geometry is None or not case.geometry.frames:
                self._count("no SEG of a volume that is not DICOM")
            elif not mask.any():
                self._count("no SEG of an empty mask")
            else:
                file, keep = self.path / f"{name}.dcm", self.keep_identifiers
                writers[file.name] = partial(
                    write_segmentation, file, mask, case.geometry, case.target, keep
                )
        if "png" in self.forms:
            writers[f"{name}/"] = partial(write_slices, self.path / name, mask)
        voxels = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).hexdigest()
        same = self.voxels.get(case.key) == voxels
        for file_name, write in writers.items():
            had = same and file_name in self.files.get(case.key, ())
            if not (had and (self.path / file_name).exists()):
                write()
        self.files[case.key], self.voxels[case.key] = list(writers), voxels
        self.close()

    def write_image(self, record: CaseRecord) -> None:
        """Write the mask of an image of its own as PNG, unless it is there; see `close`."""
        if record.mask:
            file = self.path / f"{_file_name(record.case)}.png"
            content = base64.b64decode(record.mask)
            if not file.exists() or file.read_bytes() != content:
                atomic_write(file, content)
            self.files[record.case] = [file.name]

    def close(self) -> None:
        """Write the index, as a volume's mask does each time."""
        index = {
            "files": self.files,
            "not_written": self.not_written,
            "voxels": self.voxels,
            "keep_identifiers": self.keep_identifiers,
        }
        write_json(index, self.path / INDEX)

    def _count(self, reason: str) -> None:
        self.not_written[reason] = self.not_written.get(reason, 0) + 1


def mask_folder(options: PlayingOptions, path: Path) -> MaskFolder | None:
    """Return the folder of a run's masks; None where they are not to be written."""
    if not options.save_masks:
        return None
    return MaskFolder(path, options.save, options.keep_identifiers)


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
