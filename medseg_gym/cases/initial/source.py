"""A source whose cases begin with a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.initial.providers import OPTION, make
from medseg_gym.cases.source import SlicePlace


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
            CaseError: The provider's mask has another size or type than the case's image.
        """
        case = self._inner[index]
        return replace(case, initial_mask=self._provider(case))
