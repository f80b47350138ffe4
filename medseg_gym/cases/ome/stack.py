"""An image of several planes: time points, channels and focal planes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from medseg_gym.cases.files.defects import Damaged, decoding

AXES = "tczyx"


@dataclass(frozen=True)
class Stack:
    """Planes of one image, read one at a time.

    Args:
        name: Path relative to the root, for errors.
        sizes: Length of each axis out of `AXES`; the rest have 1.
        dtype: Of the samples.
        read: Returns the (H, W) or, of samples in one piece, (H, W, 3) plane at (t, c, z).
        spacing: Millimetres a pixel (row, column), or None.
        windows: Intensities (low, high) that the file shows for each channel.
        rgb: A plane has three samples a pixel.
    """

    name: str
    sizes: dict[str, int]
    dtype: np.dtype
    read: Callable[[int, int, int], np.ndarray]
    spacing: tuple[float, float] | None = None
    windows: tuple[tuple[float, float] | None, ...] = field(default=())
    rgb: bool = False

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.sizes.get("c", 1)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.sizes["y"], self.sizes["x"]

    def places(self) -> list[tuple[int, int]]:
        """All (t, z), in order."""
        return [(t, z) for t in range(self.length("t")) for z in range(self.length("z"))]

    def length(self, axis: str) -> int:
        """Length of an axis."""
        return self.sizes.get(axis, 1)

    def plane(self, t: int, c: int, z: int) -> np.ndarray:
        """Read a plane.

        Raises:
            Damaged: It cannot be decoded.
        """
        place = f"t {t}, c {c}, z {z}"
        with decoding(self.name, place):
            plane = np.asarray(self.read(t, c, z))
        if plane.shape[:2] != self.size:
            raise Damaged(self.name, f"has a plane of {plane.shape}, not {self.size}", place)
        return plane


def axes_of(text: str, name: str) -> str:
    """Return the axes of an image, checked.

    Raises:
        Damaged: An unknown or repeated axis, or no y and x at the end.
    """
    if len(set(text)) < len(text) or not set(text) <= set(AXES) or text[-2:] != "yx":
        raise Damaged(name, f"has the axes {text!r}; out of t, c, z, and y, x at the end are read")
    return text
