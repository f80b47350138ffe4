"""The slices of volumes as cases, for whoever plays images: every slice, with or without target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.files.access.byte_cache import ByteCache
from medseg_gym.cases.source import SlicePlace
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource, load_volumes
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec

CACHE_BYTES = 1 << 29

PHANTOMS = 60
"""Volumes of a split of the phantoms whose slices are cases: ten volumes with six targets each."""


class VolumeSlices(CaseSource):
    """Every slice of every volume, in order.

    Args:
        volumes: The volumes.
        limit: First so many volumes; None takes all.
    """

    def __init__(self, volumes: VolumeSource, limit: int | None = None) -> None:
        self._volumes, self._limit = volumes, limit
        self.name, self.split, self.left_out = volumes.name, volumes.split, volumes.left_out
        self._cache = ByteCache(CACHE_BYTES)

    @property
    def volumes(self) -> VolumeSource:
        """The volumes whose slices the cases are."""
        return self._volumes

    @cached_property
    def keys(self) -> Sequence[str]:
        """Case keys, in index order; the volumes are asked for their depths when first needed."""
        return tuple(self._places)

    @property
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts."""
        return self._volumes.targets

    def place_of(self, key: str) -> SlicePlace:
        """Return the volume that a case is a slice of.

        Raises:
            CaseError: No case has that key.
        """
        return self._places[key] if key in self._places else self._order[self.index_of(key)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Case:
        place = self._order[index]
        number = self._volumes.index_of(place.volume)

        def read() -> VolumeCase:
            return self._volumes[number]

        volume = self._cache.get(place.volume, read, lambda case: case.image.nbytes)
        return volume.slice_case(place.index)

    def index_of(self, key: str) -> int:
        """Return the index of the case called `key`."""
        return self._index[key] if key in self._index else super().index_of(key)

    @cached_property
    def _places(self) -> dict[str, SlicePlace]:
        return {
            f"{volume}/slice-{index}": SlicePlace(volume, index)
            for number, volume in enumerate(self._volumes.keys[: self._limit])
            for index in range(self._volumes.depth(number))
        }

    @cached_property
    def _order(self) -> tuple[SlicePlace, ...]:
        return tuple(self._places.values())

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._places)}


@takes_spec
def load(spec: Spec, split: str) -> VolumeSlices:
    """Open the slices of what `load_volumes` opens under the same spec.

    Raises:
        CaseError: See `load_volumes`.
    """
    return VolumeSlices(load_volumes(str(spec), split))


@takes_spec
def load_phantoms(spec: Spec, split: str) -> VolumeSlices:
    """Open the slices of the first phantom volumes of a split.

    Raises:
        CaseError: See `load_volumes`.
    """
    return VolumeSlices(load_volumes(str(spec), split), PHANTOMS)
