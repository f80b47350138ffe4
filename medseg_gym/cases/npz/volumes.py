"""The same files as whole volumes: a `VolumeCase` per file and class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from medseg_gym.cases.files import Damaged, Defect, FileSpec
from medseg_gym.cases.files.file_cache import FileCache, index_path
from medseg_gym.cases.files.grouping import Grouping
from medseg_gym.cases.files.records import Record
from medseg_gym.cases.npz.dataset_format import Entry, NpzFormat
from medseg_gym.cases.source import SPLITS
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.errors import CaseError


class NpzVolumes(Sequence[VolumeCase]):
    """Volumes of .npz files, read when one is asked for.

    Args:
        dataset_format: The files and how they are read.
        split: "train", "val" or "test", dealt as for `npz:` slices; "" is all.

    Raises:
        CaseError: No volume, or a defective file and `skip_bad` is off.
    """

    def __init__(self, dataset_format: NpzFormat, split: str = "") -> None:
        if split not in ("", *SPLITS):
            raise CaseError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        self.dataset_format, self.split = dataset_format, split
        self.name = f"npz:{dataset_format.root.resolve().name}"
        grouping = Grouping(dataset_format.spec)
        records: list[Record] = []
        left_out: dict[str, int] = {}
        bad: list[Defect] = []
        with FileCache(_index(dataset_format)) as file_cache:
            entries = list(dataset_format.entries(file_cache))
        for entry in entries:
            found = [entry] if isinstance(entry, Defect) else _records(entry, grouping)
            for one in found:
                if isinstance(one, Record):
                    records.append(one)
                elif not one.note:
                    bad.append(one)
                elif one.left_out:
                    left_out[one.reason] = left_out.get(one.reason, 0) + one.left_out
        if bad and not dataset_format.given.skip_bad:
            raise CaseError(f"{dataset_format.spec}: {bad[0]} (skip_bad=1 leaves such files out)")
        if bad:
            left_out["defective files (skip_bad=1)"] = len({one.path for one in bad})
        self.left_out: Mapping[str, int] = left_out
        self.targets = tuple(sorted({record.target for record in records}))
        self._records = [one for one in records if split in ("", one.split)]
        if not self._records:
            raise CaseError(
                f"{dataset_format.spec} has no volume" + (f" in {split}" if split else "")
            )
        self.keys = tuple(record.key for record in self._records)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> VolumeCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[VolumeCase]: ...
    def __getitem__(self, index: int | slice) -> VolumeCase | list[VolumeCase]:
        """Read a volume.

        Raises:
            CaseError: Its file cannot be used; an image without slices (2D) is a volume of one.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        record = self._records[index]
        try:
            volume = self.dataset_format.volume(record.files[0], record.files[-1])
            image = volume.image(self.dataset_format.given.window, record.modality)
            mask = np.isin(volume.labels(), record.place["values"])
        except Damaged as error:
            raise CaseError(f"{self.dataset_format.spec}: {error}") from error
        spacing = volume.spacing
        return VolumeCase(
            record.key,
            image,
            mask,
            record.target,
            record.modality,
            (spacing[0], spacing[1], spacing[2]) if spacing and len(spacing) == 3 else None,
            record.group,
            self.name,
            synthetic=record.synthetic,
        )


def read_npz_volumes(path: str | Path, split: str = "") -> NpzVolumes:
    """Open .npz files of the challenge or of MedSAM as volumes.

    Args:
        path: Folder or file, with the options of `npz:` behind a question mark
            ("DATA?labels=1:liver,2:spleen").
        split: See `NpzVolumes`.

    Returns:
        A sequence, one `VolumeCase` per file and class.

    Raises:
        CaseError: See `NpzVolumes`.
    """
    dataset_format = NpzFormat(FileSpec.parse("npz", str(path), NpzFormat.options))
    if not dataset_format.root.exists():
        raise CaseError(f"npz:{path}: there is no {dataset_format.root}")
    return NpzVolumes(dataset_format, split)


def _records(entry: Entry, grouping: Grouping) -> Sequence[Record | Defect]:
    name = entry.name or Path(entry.labels).name
    return [grouping.complete(entry.record(f"{name}/{t}", t, {})) for t in entry.targets]


def _index(dataset_format: NpzFormat) -> Path:
    given = dataset_format.given
    root = os.path.realpath(dataset_format.root)
    identity = (dataset_format.version, root, given.gts, given.spacing_order)
    return index_path(f"npz.{dataset_format.root.name}.volumes", "volumes", *identity)
