"""Samples of an image file, and their EXIF orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""Turns by the values of EXIF's Orientation; 1 and all others turn nothing."""


@dataclass(frozen=True, eq=False)
class Raster:
    """The samples of an image file.

    Args:
        values: (H, W) grey or index, or (H, W, 3) colour; uint8, or of another type where the file
            has more than 8 bits a sample. Grey of 1, 2 and 4 bits is spread over 0..255.
        alpha: (H, W) opacity, of any type, opaque at `opaque`; None where the file has none.
        palette: (n, 3) uint8: `values` are indices into it; None where they are not.
        space: Where the colours were converted to RGB, what they were: CMYK, YCbCr, LAB.
        white_is_zero: The file shows 0 as white; True only where `values` are not inverted yet.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette: np.ndarray | None = None
    space: str = ""
    white_is_zero: bool = False

    @property
    def deep(self) -> bool:
        """Return whether a sample is more than a byte: nothing says which values are visible."""
        return bool(self.values.dtype != np.uint8)

    @property
    def colours(self) -> np.ndarray:
        """The values with the colour table applied: (H, W) or (H, W, 3)."""
        return self.values if self.palette is None else self.palette[self.values]

    @property
    def opaque(self) -> float:
        """Alpha of an opaque pixel."""
        kind = np.uint8 if self.alpha is None else self.alpha.dtype
        return float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 1.0

    def turned(self, orientation: int) -> Raster:
        """Return it as EXIF's orientation says that it is shown."""
        if orientation not in _TURNS:
            return self
        turn = _TURNS[orientation]
        alpha = None if self.alpha is None else np.ascontiguousarray(turn(self.alpha))
        return replace(self, values=np.ascontiguousarray(turn(self.values)), alpha=alpha)


def turned_back(orientation: int) -> int:
    """Return the orientation that undoes another."""
    return {6: 8, 8: 6}.get(orientation, orientation)
