"""A target on a slice of a DICOM series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Placed:
    """A target on a slice of a series.

    Args:
        number: Number of the segment or region.
        target: Its name.
        slice: Index of the slice in its series.
        parts: Frames or contours that show it.
        area: Pixels.
        labelmap: Its frames hold segment numbers instead of 0 and 1.
        planes: Where the frames lie (as `Plane.as_facts`), if that is not where the slice lies:
            they are carried over.
        thickness: Millimetres along their normal that those frames stand for.
    """

    number: int
    target: str
    slice: int
    parts: tuple[int, ...]
    area: int
    labelmap: bool = False
    planes: tuple[list[float], ...] = ()
    thickness: float = 0.0

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> Placed:
        """Return what `dataclasses.asdict` made of one, after JSON."""
        listed: dict[str, Any] = {
            "parts": tuple(fields["parts"]),
            "planes": tuple(fields["planes"]),
        }
        return cls(**{**fields, **listed})
