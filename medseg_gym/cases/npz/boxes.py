"""Boxes of the challenge's files, read from their pickle without running anything of it.

The challenge stores `boxes` as an array of dicts, which numpy writes as a pickle. Here a pickle may
hold dicts, lists, texts and whole numbers; of what it can name, only the five names that numpy puts
around those are known, and each stands for a class of this module, never for the real thing.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from medseg_gym.cases.files import Damaged, decoding
from medseg_gym.cases.npz.archive import Archive

MAX_BYTES = 1 << 20
"""Bytes of `boxes`; a box takes about 400."""

_FORBIDDEN = ("EXT", "PERSID", "BINPERSID", "INST", "OBJ", "NEWOBJ", "NEXT_BUFFER", "READONLY")


@dataclass(frozen=True)
class VolumeBox:
    """Box of one class: its slices, and a rectangle on the middle one. All ends are included.

    Args:
        z_min: First slice.
        z_max: Last slice.
        z_mid: The slice that the rectangle lies on.
        z_mid_x_min: First column.
        z_mid_y_min: First row.
        z_mid_x_max: Last column.
        z_mid_y_max: Last row.
    """

    z_min: int
    z_max: int
    z_mid: int
    z_mid_x_min: int
    z_mid_y_min: int
    z_mid_x_max: int
    z_mid_y_max: int

    @classmethod
    def of(cls, entry: object, shape: tuple[int, int, int]) -> VolumeBox:
        """Read one entry of `boxes`.

        Args:
            entry: A mapping of the names of the fields to whole numbers.
            shape: Slices, rows and columns of the volume.

        Raises:
            ValueError: Another form, or a box outside of the volume.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(entry, Mapping) or sorted(map(str, entry)) != sorted(names):
            raise ValueError(f"a box must have exactly {', '.join(names)}")
        for name in names:
            if isinstance(entry[name], bool) or not isinstance(entry[name], int):
                raise ValueError(f"{name} must be a whole number, got {str(entry[name])[:40]!r}")
        box = cls(**{name: entry[name] for name in names})
        depth, height, width = shape
        for low, middle, high, size, axis in (
            (box.z_min, box.z_mid, box.z_max, depth, "z"),
            (box.z_mid_y_min, box.z_mid_y_max, box.z_mid_y_max, height, "y"),
            (box.z_mid_x_min, box.z_mid_x_max, box.z_mid_x_max, width, "x"),
        ):
            if not 0 <= low <= middle <= high < size:
                raise ValueError(f"it leaves the volume along {axis} (0..{size - 1}): {box}")
        return box

    def as_dict(self) -> dict[str, int]:
        """Return it as the challenge's files hold it."""
        return asdict(self)


def read_boxes(archive: Archive, shape: tuple[int, int, int]) -> tuple[VolumeBox, ...] | None:
    """Read the boxes of a file.

    Args:
        archive: The file.
        shape: Slices, rows and columns of its volume.

    Returns:
        One box per class in ascending order of the labels; None where the file has none.

    Raises:
        Damaged: They cannot be used, or hold anything but dicts of whole numbers.
    """
    if "boxes" not in archive:
        return None
    header, content = archive.read_bytes("boxes", MAX_BYTES)
    if not header.dtype.hasobject:
        raise Damaged(archive.name, f"holds {header.dtype} instead of one dict a class", "boxes")
    with decoding(archive.name, "boxes"):
        entries = _unpickle(content)
        if isinstance(entries, _Array):
            entries = entries.items
        if not isinstance(entries, list):
            raise ValueError("one dict a class is wanted")
        return tuple(VolumeBox.of(_plain(entry), shape) for entry in entries)


def _unpickle(content: bytes) -> Any:
    """Return the pickled value, after a look at every operation.

    Raises:
        ValueError: Truncated, or an operation that plain data does not need.
        pickle.UnpicklingError: A name that is not known here.
    """
    for operation, argument, _ in pickletools.genops(content):
        if operation.name.startswith(_FORBIDDEN):
            raise ValueError(f"its pickle holds {operation.name}; only plain data is read")
        if operation.name.endswith("PUT") and int(str(argument)) > len(content):
            raise ValueError("its pickle would fill the memory")
    return _Unpickler(io.BytesIO(content)).load()


class _Dtype:
    """Stands for numpy.dtype: letter, size and byte order of a whole number."""

    def __init__(self, text: object, *_: object) -> None:
        self.text, self.order = str(text), "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = str(state[1])

    def number(self, content: object) -> int:
        kind, size = self.text[:1], self.text[1:]
        if kind not in ("i", "u") or size not in ("1", "2", "4", "8"):
            raise ValueError(f"a number of the type {self.text[:20]!r}; whole numbers are wanted")
        if not isinstance(content, bytes) or len(content) != int(size):
            raise ValueError("a number with too few or too many bytes")
        order = "big" if self.order == ">" else "little"
        return int.from_bytes(content, order, signed=kind == "i")  # type: ignore[arg-type]


class _Array:
    """Stands for an array of objects: its elements."""

    def __init__(self, *_: object) -> None:
        self.items: list = []

    def __setstate__(self, state: tuple) -> None:
        if len(state[1]) != 1 or not isinstance(state[4], list):
            raise ValueError("a list of dicts is wanted")
        self.items = state[4]


def _scalar(dtype: object, content: object) -> int:
    if not isinstance(dtype, _Dtype):
        raise ValueError("a number without a type")
    return dtype.number(content)


class _Named:
    """Stands for numpy.ndarray where it is named as the type to be made."""


_KNOWN = {
    ("numpy", "ndarray"): _Named,
    ("numpy", "dtype"): _Dtype,
    **{
        (f"numpy.{core}.multiarray", name): own
        for core in ("core", "_core")
        for name, own in (("_reconstruct", _Array), ("scalar", _scalar))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(
                f"its pickle names {module}.{name}; only plain data is read, for anything else "
                "could run a program"
            )
        return _KNOWN[module, name]


def _plain(entry: object) -> object:
    """Return an entry, an array of one dict as the dict."""
    if isinstance(entry, _Array) and len(entry.items) == 1:
        return entry.items[0]
    return entry
