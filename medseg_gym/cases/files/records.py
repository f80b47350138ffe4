"""Records of cases before a pixel is read, and the results of reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medseg_gym.cases.volumes.geometry import VolumeGeometry


@dataclass(frozen=True, slots=True)
class Record:
    """A case that is still on disk. Every field survives JSON.

    Args:
        key: Stable and unique; made of paths relative to the root, so that moving it is harmless.
        target: As in `Case`.
        files: What the pixels are read from, relative to the root: the image first, then the mask.
        place: What else the format needs to read it: slice, label value, row number, ...
        split: "train", "val" or "test" where the data says so, else "" (then chosen by group).
        group: Patient, volume or image; "" is the first file.
        modality: As in `Case`.
        spacing: As in `Case`.
        source: As in `Case`; "" is the name of the source.
        synthetic: As in `Case`.
        size: (H, W) in pixels where known without reading.
        area: Pixels of the mask where known without reading.
    """

    key: str
    target: str
    files: tuple[str, ...]
    place: Any = None
    split: str = ""
    group: str = ""
    modality: str = ""
    spacing: tuple[float, float] | None = None
    source: str = ""
    synthetic: bool = False
    size: tuple[int, int] | None = None
    area: int | None = None


@dataclass(frozen=True, slots=True)
class Pixels:
    """The arrays of a case.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
    """

    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True, slots=True)
class VolumePixels:
    """The arrays of a volume of which cases are slices.

    Args:
        image: (D, H, W) or (D, H, W, 3) uint8.
        mask: (D, H, W) bool.
        spacing: As in `VolumeCase`.
        geometry: As in `VolumeCase`.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float, float] | None
    geometry: VolumeGeometry | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Results of reading all pixels of a case.

    Args:
        height: Rows.
        width: Columns.
        area: Pixels of the mask.
        flat: True where all pixels of the image are equal.
    """

    height: int
    width: int
    area: int
    flat: bool
