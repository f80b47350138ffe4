"""One split of a data set on disk, as a CaseSource."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cached_property

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource, load_cases
from medseg_gym.cases.files.data import FileData, split_counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Defect
from medseg_gym.cases.files.records import Record
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.files.volumes import FileVolumes
from medseg_gym.cases.source import EmptySplit, SlicePlace
from medseg_gym.cases.volume_source import VolumeSource


class FileCaseSource(CaseSource):
    """The cases of one split; files are read when a case is asked for.

    Args:
        data: The indexed data.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data is defective and `skip_bad` is off, or the split is empty.
    """

    def __init__(self, data: FileData, split: str) -> None:
        data.require_usable()
        self.data, self.split, self.name = data, split, data.name
        self.left_out, self.drawn_split = data.left_out, data.draws_splits
        self.records: tuple[Record, ...] = data.split(split)
        if not self.records:
            problem = EmptySplit(
                f"{data.spec} has no case in split {split!r}; it has {split_counts(data)}"
                + data.left_out_text()
                + data.other_splits(split)
            )
            problem.drawn = data.draws_splits
            raise problem

    def group_count(self) -> int:
        """Return how many groups the cases come from."""
        return len({record.group for record in self.records})

    @cached_property
    def keys(self) -> Sequence[str]:
        """Case keys, in index order."""
        return tuple(record.key for record in self.records)

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Target texts of all splits, sorted."""
        return self.data.targets

    @cached_property
    def volumes(self) -> VolumeSource | None:
        """See `CaseSource.volumes`; None as well where `slices=` plays a part of every volume."""
        if self.data.spec.options.get("slices", "all") not in ("", "all"):
            return None
        volumes = FileVolumes(self.data, self.records, self.split)
        return volumes if len(volumes) else None

    def place_of(self, key: str) -> SlicePlace | None:
        """See `CaseSource.place_of`."""
        if self.volumes is None:
            return None
        return self.data.dataset_format.place(self.records[self.index_of(key)])

    @property
    def defects(self) -> tuple[Defect, ...]:
        """Defects of the data, as far as it was read."""
        return self.data.defects

    @cached_property
    def _index(self) -> dict[str, int]:
        return {record.key: index for index, record in enumerate(self.records)}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Case:
        """Read case `index`; a negative one counts from the end.

        Raises:
            CaseError: Its files cannot be used.
            IndexError: Outside of the split.
        """
        return self.data.case(self.records[index])

    def index_of(self, key: str) -> int:
        """Index of the case called `key`."""
        return self._index[key] if key in self._index else super().index_of(key)

    def __reduce__(self) -> tuple:
        # Another process opens its own: the index makes that cheap.
        return load_cases, (str(self.data.spec), self.split)


_indexed: weakref.WeakValueDictionary[tuple[str, str], FileData] = weakref.WeakValueDictionary()


def index_dataset(format_class: type[DatasetFormat], argument: str) -> FileData:
    """Index the data that `NAME:ARGUMENT` names, whatever is wrong with it.

    Args:
        format_class: Class of the format.
        argument: The text behind the colon.

    Raises:
        CaseError: The path does not exist, or an option cannot be used.
    """
    return FileData(format_class(FileSpec.parse(format_class.name, argument, format_class.options)))


def open_split(format_class: type[DatasetFormat], argument: str, split: str) -> FileCaseSource:
    """Open a split; the splits of one spec share their index while one of them is in use.

    Args:
        format_class: Class of the format.
        argument: The text behind the colon.
        split: "train", "val" or "test".

    Raises:
        CaseError: See `index_dataset` and `FileCaseSource`.
    """
    at = (format_class.name, argument)
    data = _indexed.get(at) or index_dataset(format_class, argument)
    source = FileCaseSource(data, split)
    _indexed[at] = data
    return source
