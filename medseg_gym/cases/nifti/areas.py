"""Areas of the labels of a volume: pixels per value and slice, from one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.volumes import Volume
from medseg_gym.cases.volumes.whole_numbers import whole_numbers

MAX_DISTINCT = 1_000


@dataclass
class LabelAreas:
    """Results of one pass over a label volume.

    Args:
        areas: (channel, label value) -> slice index -> pixels, in ascending order of all;
            background 0 is left out.
        background: The first of several channels is 1 exactly where no other channel has a label.
        disjoint: No voxel has a label in more than one channel.
        rounded: Voxels that were no whole numbers, but within `whole_numbers.TOLERANCE` of one.
        example: The first of them.
        place: Where it lies.
    """

    areas: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    background: bool = False
    disjoint: bool = True
    rounded: int = 0
    example: float = 0.0
    place: str = ""


def label_areas(volume: Volume) -> LabelAreas:
    """Count the pixels of every label, per channel and slice.

    Args:
        volume: A label volume.

    Raises:
        Damaged: Values that are not whole (see `whole_numbers`), not finite, negative, or far too
            many for labels; or the file is damaged.
    """
    channels = volume.header.channels
    labels = LabelAreas(background=channels > 1)
    areas: dict[tuple[int, int], dict[int, int]] = {}
    for index in _slices(volume):
        shape = volume.plane_shape if channels > 1 else (0, 0)
        labelled = np.zeros(shape, np.uint16)  # by how many channels, pixel by pixel
        for channel in range(channels):
            stored = volume.plane(index, channel)
            plane = whole_numbers(stored, volume.name, f"slice {index}")
            if stored.dtype.kind == "f":
                _count_rounded(labels, stored, plane, f"slice {index}")
            # Most of a slice is background, which need not be counted.
            counts = np.bincount(plane[plane.any(axis=1)].ravel())
            for value in np.flatnonzero(counts[1:]) + 1:
                areas.setdefault((channel, int(value)), {})[index] = int(counts[value])
            if channels > 1:
                labelled += plane > 0
                if channel == 0:
                    first = plane > 0
        if len(areas) > MAX_DISTINCT:
            raise Damaged(
                volume.name, f"has over {MAX_DISTINCT} distinct values: an image, not labels"
            )
        if channels > 1:
            labels.background = labels.background and bool(((labelled - first > 0) != first).all())
            labels.disjoint = labels.disjoint and int(labelled.max()) < 2
    labels.areas = dict(sorted(areas.items()))
    return labels


def _slices(volume: Volume) -> Iterable[int]:
    """Return the slices to look at: those of one channel of small whole numbers that hold any."""
    header = volume.header
    if header.compressed and header.channels == 1:  # decoded as a whole anyway
        voxels = volume.voxels()
        if voxels.dtype.kind == "u" and voxels.dtype.itemsize <= 2:
            return [int(index) for index in np.flatnonzero(voxels.any(axis=(1, 2)))]
    return range(len(volume))


def _count_rounded(labels: LabelAreas, stored: np.ndarray, plane: np.ndarray, place: str) -> None:
    odd = stored != plane
    if not odd.any():
        return
    if not labels.rounded:
        labels.example, labels.place = float(stored[odd][0]), place
    labels.rounded += int(np.count_nonzero(odd))
