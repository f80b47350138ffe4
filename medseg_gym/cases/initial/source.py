"""A source whose cases begin with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.initial.providers import OPTION, make
from medseg_gym.cases.source import SlicePlace

if TYPE_CHECKING:
    from medseg_gym.cases.volumes.geometry import VolumeGeometry


class WithInitialMasks(CaseSource):
    """The cases of a source, each with an initial mask.

    They are played as images of their own: whoever plays a whole volume begins with nothing.

    Args:
        inner: The source.
        provider: Names the provider, see `providers.make`.

    Raises:
        CaseError: There is no such provider.
    """

    def __init__(self, inner: CaseSource, provider: str) -> None:
        self._inner, self._provider = inner, make(provider)
        self.name = f"{inner.name}{'&' if '?' in inner.name else '?'}{OPTION}={provider}"
        self.split, self.left_out = inner.split, inner.left_out
        self.drawn_split = inner.drawn_split
        self._grids: dict[str, VolumeGeometry] = {}

    @property
    def keys(self) -> Sequence[str]:
        """Case keys, in index order."""
        return self._inner.keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts."""
        return self._inner.targets

    def place_of(self, key: str) -> SlicePlace | None:
        """Return the volume that a case is a slice of; None for an image of its own."""
        return self._inner.place_of(key)

    def outlines(self, index: int) -> list[tuple[str, np.ndarray]]:
        """Return the targets that are known in the image of a case, with their masks."""
        return self._inner.outlines(index)

    def group_count(self) -> int | None:
        """Return how many groups the cases come from, where that is known without reading them."""
        return self._inner.group_count()

    def index_of(self, key: str) -> int:
        """Return the index of the case called `key`."""
        return self._inner.index_of(key)

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int) -> Case:
        """Read case `index`, and the mask that it begins with.

        Raises:
            CaseError: The provider gives no mask, or one of another size or type than the image.
        """
        case = self._inner[index]
        return replace(case, initial_mask=self._mask(case))

    def _mask(self, case: Case) -> np.ndarray | None:
        of_slice = getattr(self._provider, "of_slice", None)
        place = None if of_slice is None else self._inner.place_of(case.key)
        volumes = self._inner.volumes
        if of_slice is None or place is None or volumes is None:
            return self._provider(case)
        if place.volume not in self._grids:  # a volume is read whole for its grid
            geometry = volumes[volumes.index_of(place.volume)].geometry
            if geometry is None:
                return self._provider(case)
            self._grids[place.volume] = geometry
        mask: np.ndarray | None = of_slice(case, self._grids[place.volume], place.index)
        return mask
