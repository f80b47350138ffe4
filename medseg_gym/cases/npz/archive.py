"""Arrays of an .npz file, read without pickle and checked before any of them is unpacked."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from medseg_gym.cases.files import Damaged, decoding, require_file
from medseg_gym.cases.volumes.header import DEFLATE_RATIO, MAX_DECODED

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 24  # bytes read at once
_ENCRYPTED = 1  # flag bit of zip


@dataclass(frozen=True)
class ArrayHeader:
    """Header of one array of the file.

    Args:
        shape: Its axes.
        dtype: Type of its elements.
        fortran: Stored with the first axis running fastest.
        start: Bytes before the elements.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def count(self) -> int:
        """Elements."""
        count = 1
        for side in self.shape:  # plain integers: a damaged header must not overflow
            count *= int(side)
        return count


class Archive:
    """The arrays of an .npz file; opening it reads the table of contents alone.

    Args:
        path: The file.
        name: Path relative to the root of the data, for errors; by default the path.

    Raises:
        Damaged: It is missing, no zip file, or lists a member twice.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = Path(path), name or str(path)
        require_file(path, self.name)
        with decoding(self.name):
            if not zipfile.is_zipfile(path):
                raise Damaged(
                    self.name,
                    "is no .npz (a zip file of arrays), or it is truncated; copy it again",
                )
            with zipfile.ZipFile(path) as file:
                members = file.infolist()
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            array = member.filename.removesuffix(".npy")
            if array in self._members:
                raise Damaged(self.name, "occurs twice in the file", array)
            self._members[array] = member

    def __contains__(self, array: str) -> bool:
        return array in self._members

    def header(self, array: str) -> ArrayHeader:
        """Read the header of an array and make sure that its elements can be there.

        Raises:
            Damaged: The array is missing, damaged, packed in an unusual way, or it announces more
                than is read or than its bytes can hold.
        """
        member = self._member(array)
        with decoding(self.name, array), zipfile.ZipFile(self.path) as file:
            with file.open(member) as stream:
                header = _read_header(stream, self.name, array)
        if header.dtype.hasobject:
            return header  # no elements of fixed size; `read` refuses them
        promised, there = header.count * header.dtype.itemsize, member.file_size - header.start
        if promised != there:
            raise Damaged(
                self.name,
                f"the header announces {_text(header.shape)} elements of {header.dtype} "
                f"({promised} bytes) but {there} bytes follow: it is damaged; write it again",
                array,
            )
        if promised > MAX_DECODED:
            raise Damaged(
                self.name,
                f"announces {_text(header.shape)} elements of {header.dtype}, "
                f"{promised / 2**30:.1f} GiB unpacked, more than the {MAX_DECODED / 2**30:.0f} GiB "
                "that are read; crop it, or store it as uint8",
                array,
            )
        if member.file_size > DEFLATE_RATIO * member.compress_size + 4096:
            raise Damaged(
                self.name,
                f"announces {member.file_size} bytes, more than its {member.compress_size} "
                "compressed bytes can hold: the file is damaged, or made to fill the memory",
                array,
            )
        return header

    def read(self, array: str) -> np.ndarray:
        """Unpack an array of numbers.

        Raises:
            Damaged: As `header`; it holds objects or texts, or its bytes are damaged.
        """
        header = self.header(array)
        if header.dtype.hasobject:
            raise Damaged(
                self.name,
                "holds pickled objects, which are never loaded: they could run any program; store "
                "numbers",
                array,
            )
        if header.dtype.kind not in "biuf":
            raise Damaged(self.name, f"holds {header.dtype} instead of real numbers", array)
        elements = np.empty(header.count, header.dtype)
        with decoding(self.name, array), zipfile.ZipFile(self.path) as file:
            with file.open(self._member(array)) as stream:
                stream.read(header.start)
                _fill(stream, elements.view(np.uint8).data, self.name, array)
        shaped = elements.reshape(header.shape, order="F" if header.fortran else "C")
        return shaped.astype(header.dtype.newbyteorder("="), copy=False)

    def read_bytes(self, array: str, limit: int) -> tuple[ArrayHeader, bytes]:
        """Return the header of an array and its bytes as they are stored.

        Args:
            array: Its name.
            limit: Bytes that it may have.

        Raises:
            Damaged: As `header`, or it has more bytes.
        """
        member = self._member(array)
        if member.file_size > limit:
            cause = f"has {member.file_size} bytes, more than the {limit} that are read"
            raise Damaged(self.name, cause, array)
        header = self.header(array)
        with decoding(self.name, array), zipfile.ZipFile(self.path) as file:
            with file.open(member) as stream:
                stream.read(header.start)
                return header, stream.read(limit)

    def _member(self, array: str) -> zipfile.ZipInfo:
        if array not in self._members:
            there = ", ".join(sorted(self._members)[:8]) or "nothing"
            raise Damaged(self.name, f"has no array {array!r}; it holds {there}")
        member = self._members[array]
        if member.compress_type not in _METHODS or member.flag_bits & _ENCRYPTED:
            raise Damaged(
                self.name,
                "is encrypted or packed by another method than numpy's; write it again with "
                "numpy.savez_compressed",
                array,
            )
        return member


def _read_header(stream: IO[bytes], name: str, array: str) -> ArrayHeader:
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise Damaged(name, f"is of the unknown .npy format {version[0]}.{version[1]}", array)
    shape, fortran, dtype = readers[version](stream)
    if min(shape, default=0) < 0:
        raise Damaged(name, f"announces the shape {shape}", array)
    return ArrayHeader(tuple(int(side) for side in shape), dtype, fortran, stream.tell())


def _fill(stream: IO[bytes], elements: memoryview, name: str, array: str) -> None:
    done = 0
    while done < len(elements):
        chunk = stream.read(min(_CHUNK, len(elements) - done))
        if not chunk:
            raise Damaged(name, f"ends after {done} of {len(elements)} bytes: truncated", array)
        elements[done : done + len(chunk)] = chunk
        done += len(chunk)
    stream.read(1)  # at the end zipfile compares the checksum


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
