"""Scan of one .npz file for the index: size, spacing, areas of the labels, defects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_gym.cases.files import Damaged, Defect
from medseg_gym.cases.npz.volume import NpzVolume


@dataclass
class NpzScan:
    """Results of one pass over the labels of a file.

    Args:
        defects: Why it cannot be used; then the rest is empty.
        shape: Slices, rows and columns.
        flat: An image, not a volume.
        spacing: As `NpzVolume.spacing`.
        synthetic: As `NpzVolume.synthetic`.
        areas: Label value -> slice -> pixels, ascending; without background.
    """

    defects: list[Defect] = field(default_factory=list)
    shape: tuple[int, int, int] = (0, 0, 0)
    flat: bool = False
    spacing: tuple[float, ...] | None = None
    synthetic: bool = False
    areas: dict[int, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, open_volume: Any) -> NpzScan:
        """Read the headers, the spacing and the labels of a file.

        Args:
            open_volume: `() -> NpzVolume`.
        """
        try:
            volume: NpzVolume = open_volume()
            areas: dict[int, dict[int, int]] = {}
            for index, plane in enumerate(volume.labels()):
                counts = np.bincount(plane.ravel())
                for value in np.flatnonzero(counts[1:]) + 1:
                    areas.setdefault(int(value), {})[index] = int(counts[value])
            return cls(
                [],
                volume.layout.shape,
                volume.layout.flat,
                volume.spacing,
                volume.synthetic,
                dict(sorted(areas.items())),
            )
        except Damaged as error:
            return cls([error.defect])

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {
            "defects": [defect.as_dict() for defect in self.defects],
            "shape": self.shape,
            "flat": self.flat,
            "spacing": self.spacing,
            "synthetic": self.synthetic,
            "areas": [[v, list(by), list(by.values())] for v, by in self.areas.items()],
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> NpzScan:
        """Return what `as_json` wrote."""
        depth, height, width = saved["shape"]
        return cls(
            [Defect(**defect) for defect in saved["defects"]],
            (depth, height, width),
            saved["flat"],
            None if saved["spacing"] is None else tuple(saved["spacing"]),
            saved["synthetic"],
            {v: dict(zip(at, pixels, strict=True)) for v, at, pixels in saved["areas"]},
        )
