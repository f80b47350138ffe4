"""The contract of a dataset format: list cases, and decode one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from medseg_gym.cases.files.access.byte_cache import ByteCache
from medseg_gym.cases.files.defects import Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.records import Pixels, Record, VolumePixels
from medseg_gym.cases.files.spec import FileOptions, FileSpec
from medseg_gym.cases.source import SlicePlace


class DatasetFormat(ABC):
    """A way of keeping cases in files.

    A subclass lists what is there in `index` and decodes one case in `read`. Everything else
    (index, splits, groups, vocabulary, defects, skipping) is the same for all and lives in
    `FileData` and `FileCaseSource`.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option has a value that cannot be used.
    """

    name: ClassVar[str]
    """Word before the colon of the spec."""

    version: ClassVar[int] = 1
    """Raised whenever `index` remembers something else for the same files."""

    options: ClassVar[type[FileOptions]] = FileOptions
    """Options of the format; read them with `spec.read`."""

    index_options: ClassVar[tuple[str, ...] | None] = None
    """Those that change what `index` remembers; None is all but the shared ones."""

    def __init__(self, spec: FileSpec) -> None:
        self.spec = spec
        self.root = spec.path
        self.cache = ByteCache()

    @abstractmethod
    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List all cases and everything that is wrong, without stopping at the first.

        Args:
            file_cache: Keep what costs reading in `file_cache.remember(key, files, make)`.

        Yields:
            Records in a stable order, and Defects, with paths relative to the root.
        """

    @abstractmethod
    def read(self, record: Record) -> Pixels:
        """Decode one case.

        Raises:
            Damaged: Its files cannot be used.
        """

    def group_label(self, group: str) -> str:
        """Return what a group is called outside of the data; by default its name there."""
        return group

    def place(self, record: Record) -> SlicePlace | None:
        """Return the volume that a case is a slice of; None for an image of its own."""
        del record
        return None

    def read_volume(self, record: Record) -> VolumePixels:
        """Decode the whole volume that a case is a slice of, with all of its target.

        Args:
            record: Of any of its slices; `place` has given its volume.

        Raises:
            CaseError: Its files cannot be used, or its slices make no volume.
        """
        raise NotImplementedError(f"{self.name}: {record.key} is a slice of no volume")

    def path(self, relative: str) -> Path:
        """Return the file that a relative path names ("" is the root itself)."""
        return self.root / relative if relative else self.root
