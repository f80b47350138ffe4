"""The source of phantom volumes: index -> (volume, target) by arithmetic, drawn on demand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import numpy as np

from medseg_gym.cases.phantoms.volumes.abdomen import LESION, ORGANS, VolumeDrawing, draw_abdomen
from medseg_gym.cases.source import SPLITS
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.errors import CaseError

LENGTH = 12_000
"""Nominal number of cases of a split."""

STRUCTURES = (*ORGANS, LESION)
"""One case of each on every volume, in this order."""

TARGETS = tuple(f"{name} in abdomen CT volume" for name in STRUCTURES)

_DRAWING = 1  # raise when the drawing changes, so that old results are not mistaken for new ones
_MIN_VOXELS = 60
_TRIES = 50
_KEY = re.compile(r"phantoms-volume/([a-z]+)/(\d{6})-(\d)")


class _Keys(Sequence[str]):
    """Keys made on demand; `index` parses instead of searching."""

    def __init__(self, split: str) -> None:
        self._split = split

    def __len__(self) -> int:
        return LENGTH

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(LENGTH)))
        if not -LENGTH <= index < LENGTH:
            raise IndexError(f"phantoms-volume: case {index} of {LENGTH} ({self._split!r})")
        number, slot = divmod(int(index) % LENGTH, len(STRUCTURES))
        return f"phantoms-volume/{self._split}/{number:06d}-{slot}"

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the position of a key.

        Raises:
            ValueError: It is not a key of this source.
        """
        match = _KEY.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            position = int(match[2]) * len(STRUCTURES) + int(match[3])
            if position in range(LENGTH)[start:stop] and self[position] == value:
                return position
        raise ValueError(f"{value!r} is not a phantom key of this source")


class PhantomVolumes(VolumeSource):
    """Synthetic abdomen CT volumes, drawn on demand; the same key gives the same voxels.

    Args:
        split: "train", "val" or "test"; no volume is in two of them.
    """

    name = "phantoms-volume"

    def __init__(self, split: str) -> None:
        self.split = split
        self._keys = _Keys(split)

    @property
    def keys(self) -> Sequence[str]:
        """Keys, in index order; lazy."""
        return self._keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts, the same for all splits."""
        return TARGETS

    def __getitem__(self, index: int) -> VolumeCase:
        """Draw case `index`; a negative one counts from the end.

        Raises:
            IndexError: Outside of the source.
        """
        key = self._keys[index]
        number, slot = divmod(int(index) % LENGTH, len(STRUCTURES))
        drawing = _drawing(self.split, number)
        return VolumeCase(
            key,
            drawing.image,
            drawing.masks[STRUCTURES[slot]],
            TARGETS[slot],
            "CT",
            drawing.spacing,
            group=key.rpartition("-")[0],
            source=self.name,
            synthetic=True,
        )


@lru_cache(maxsize=8)
def _drawing(split: str, number: int) -> VolumeDrawing:
    """Draw a volume in which every structure is large enough."""
    words = (_DRAWING, SPLITS.index(split), number)
    rng = np.random.default_rng(np.random.SeedSequence(words))
    for _ in range(_TRIES):
        drawing = draw_abdomen(rng)
        if all(np.count_nonzero(mask) >= _MIN_VOXELS for mask in drawing.masks.values()):
            drawing.image.flags.writeable = False
            return drawing
    raise AssertionError("phantom volumes show too few structures")


def load(argument: str, split: str) -> PhantomVolumes:
    """Open the phantom volumes for `load_volumes("phantoms-volume", split)`.

    Raises:
        CaseError: There is an argument; there are no kinds to choose from.
    """
    if argument:
        raise CaseError(f"phantoms-volume:{argument}: takes no argument; write phantoms-volume")
    return PhantomVolumes(split)
