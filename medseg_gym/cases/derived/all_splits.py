"""All splits of cases or of volumes as one: `--split all`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Generic, TypeVar

from medseg_gym.cases.case import Case, ReadOnlyCase
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.source import ALL, SlicePlace, Source
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.errors import CaseError

OneCase = TypeVar("OneCase", bound=ReadOnlyCase)


class _AllSplits(Source[OneCase], Generic[OneCase]):
    """The splits of a source, one behind the other; a split that repeats the others adds nothing.

    Args:
        splits: Source by split, at least one.

    Raises:
        CaseError: Splits that share some of their keys, not all.
    """

    split = ALL

    def __init__(self, splits: Mapping[str, Source[OneCase]]) -> None:
        self._splits = dict(splits)
        self.parts: list[Source[OneCase]] = []
        self._index: dict[str, int] = {}
        for split, source in splits.items():
            repeated = [key for key in source.keys if key in self._index]
            if repeated and len(repeated) < len(source):
                raise CaseError(
                    f"{source.name}: split {split!r} holds {self.noun} {repeated[0]!r} of another "
                    "split, and others of its own: all splits together would hold it twice"
                )
            if not repeated:
                self.parts.append(source)
                start = len(self._index)
                self._index |= {key: start + i for i, key in enumerate(source.keys)}
        first = self.parts[0]
        self.name, self.left_out = first.name, first.left_out
        self.drawn_split = first.drawn_split
        self._starts = [0]
        for part in self.parts:
            self._starts.append(self._starts[-1] + len(part))

    @cached_property
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""
        return tuple(self._index)

    @property
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts, the same for all splits."""
        return self.parts[0].targets

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> OneCase:
        part, inner = self._place(index)
        return part[inner]

    def index_of(self, key: str) -> int:
        """Return the index of the case or volume called `key`."""
        return self._index[key] if key in self._index else super().index_of(key)

    def __reduce__(self) -> tuple:
        return type(self), (self._splits,)  # each of which says how another process opens it

    def _place(self, index: int) -> tuple[Source[OneCase], int]:
        number = range(len(self))[index]
        at = max(n for n, start in enumerate(self._starts[:-1]) if start <= number)
        return self.parts[at], number - self._starts[at]


class AllVolumes(_AllSplits[VolumeCase], VolumeSource):
    """The volumes of all splits."""

    def depth(self, index: int) -> int:
        """Return how many slices volume `index` has."""
        part, inner = self._place(index)
        assert isinstance(part, VolumeSource)
        return part.depth(inner)


class AllCases(_AllSplits[Case], CaseSource):
    """The cases of all splits."""

    @cached_property
    def volumes(self) -> VolumeSource | None:
        """The volumes whose slices the cases are; None where some are images of their own."""
        volumes = [part.volumes for part in self.parts if isinstance(part, CaseSource)]
        whole = [one for one in volumes if one is not None]
        if len(whole) < len(volumes):
            return None
        return AllVolumes({one.split or str(n): one for n, one in enumerate(whole)})

    def place_of(self, key: str) -> SlicePlace | None:
        """Return the volume that a case is a slice of; None for an image of its own."""
        part, _ = self._place(self.index_of(key))
        assert isinstance(part, CaseSource)
        return part.place_of(key)
