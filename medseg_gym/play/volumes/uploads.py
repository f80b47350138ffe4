"""Files of a scan on their way in: numbered, bounded, in a temporary folder."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from medseg_gym.cases.volumes import SUFFIXES
from medseg_gym.serving.errors import ServiceError

NPZ, DICOM = ".npz", ".dcm"

VOLUME_SUFFIXES = (*(s for s in SUFFIXES if s not in (".nhdr", ".mhd")), NPZ)
"""Volume files whose voxels are in the same file as the header."""

CHUNK = 4 << 20
"""Bytes of a file that the page sends in one request."""


@dataclass(frozen=True)
class ScanLimits:
    """Bounds of scans that people open.

    Args:
        nbytes: Bytes on disk, of all scans of an owner.
        files: Files of one scan.
        voxels: Voxels of one scan; all open ones of an owner may have twice as many.
    """

    nbytes: int
    files: int
    voxels: int


@dataclass(eq=False)
class Upload:
    """Files that have come so far.

    Args:
        folder: Holds them and nothing else; their own names are not kept.
        suffixes: Kind of each by number.
        sizes: Bytes of each by number.
    """

    folder: Path
    suffixes: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.used = time.monotonic()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())

    def path(self, number: int) -> Path:
        """Return the path of a file: its number and its kind."""
        return self.folder / f"{number:04d}{self.suffixes[number]}"

    def add(self, number: int, suffix: str, offset: int, content: bytes, room: int) -> None:
        """Append a part to a file.

        Args:
            number: Number of the file, from 0.
            suffix: One of `VOLUME_SUFFIXES`, or `DICOM`.
            offset: Bytes of the file that came before.
            content: The part.
            room: Bytes that may still be written.

        Raises:
            ServiceError: Not the next part, another kind than before, or no room for it.
        """
        self.used = time.monotonic()
        if offset != self.sizes.get(number, 0) or suffix != self.suffixes.get(number, suffix):
            raise ServiceError(
                f"file {number} has {self.sizes.get(number, 0)} bytes here, and a part at "
                f"{offset} came; send the scan again",
                409,
            )
        if len(content) > room:
            raise ServiceError(
                "this scan is too large: with your others it takes up more than the service "
                "keeps; remove one that you need no more",
                413,
            )
        self.suffixes[number] = suffix
        try:
            with self.path(number).open("ab") as file:
                file.write(content)
        except OSError as error:
            raise ServiceError(f"the scan cannot be stored: {error.strerror}", 507) from error
        self.sizes[number] = offset + len(content)

    def scan(self) -> tuple[Path, bool]:
        """Return what is to be read, and whether it is DICOM.

        Raises:
            ServiceError: No file, several volume files, or volume files among DICOM.
        """
        volumes = [n for n, suffix in self.suffixes.items() if suffix != DICOM]
        if not self.suffixes:
            raise ServiceError("there is no file in it")
        if not volumes:
            return self.folder, True
        if len(self.suffixes) > 1:
            raise ServiceError(
                f"{len(self.suffixes)} files came and {len(volumes)} of them are volumes; open one "
                "volume file, or the files of one DICOM series"
            )
        return self.path(volumes[0]), False

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)
