"""Sources: the contract that those of cases and those of volumes share, and how both are opened."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from medseg_gym.cases.case import Case, ReadOnlyCase
from medseg_gym.errors import CaseError, nearest
from medseg_gym.registry import Registry
from medseg_gym.statistics import MIN_GROUPS

if TYPE_CHECKING:
    from typing_extensions import Self

SPLITS = ("train", "val", "test")
ALL, AUTO = "all", "auto"

OneCase = TypeVar("OneCase", bound=ReadOnlyCase)
AnySource = TypeVar("AnySource", bound="Source[Any]")


class EmptySplit(CaseError):
    """A split that the data does not have; its other splits may be fine.

    Attributes:
        drawn: The data name no splits; see `Source.drawn_split`.
    """

    drawn = False


@dataclass(frozen=True)
class SlicePlace:
    """Place of a case that is a slice of a volume.

    Args:
        volume: Key of the volume in `CaseSource.volumes`.
        index: Which slice of it, from 0.
    """

    volume: str
    index: int


def left_out_note(left_out: Mapping[str, int]) -> str:
    """Say below a table what the reader of the cases left out; "" where that is nothing.

    Args:
        left_out: See `Source`.
    """
    counts = "; ".join(f"{reason}: {count}" for reason, count in left_out.items())
    return f"Left out of the cases, all splits together: {counts}." if counts else ""


def split_note(source: Source[Any]) -> str:
    """Say below a table that the cases are no test split, though it looks like one; else ""."""
    if source.split != ALL or not source.drawn_split:
        return ""
    return (
        f"The data name no splits: all {len(source)} {source.noun}s were played. A policy that was "
        "trained on these data has seen some of them; --split test plays what training leaves out."
    )


def played_split(source: Source[Any], asked: str) -> str:
    """Return the split that was opened for the one that was asked for, as "auto"."""
    return source.split or ("test" if asked == AUTO else asked)


class Source(ABC, Generic[OneCase]):
    """A lazy, indexable collection of cases or of volumes.

    A subclass gives `keys`, `targets` and `__getitem__`. `keys` may be any sequence, computed
    lazily; `targets` is the ordered vocabulary of target texts and is the same for all splits of
    a data set, so that a policy trained on one split can be evaluated on another.
    """

    noun: ClassVar[str] = "case"
    name: str = "cases"
    split: str = ""
    left_out: Mapping[str, int] = MappingProxyType({})
    """Counts of what the reader left out of all splits together, by reason. A reason is
    a noun with the option that changes it: "targets under 20 pixels (min_area= changes that)"."""

    drawn_split: bool = False
    """True where the data name no splits, so that groups were dealt to them by a hash."""

    def group_count(self) -> int | None:
        """Return how many groups the cases come from, where that is known without reading them."""
        return None

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts, the same for all splits."""

    @abstractmethod
    def __getitem__(self, index: int) -> OneCase:
        """Read number `index` (0 <= index < len)."""

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[OneCase]:
        for index in range(len(self)):
            yield self[index]

    def index_of(self, key: str) -> int:
        """Return the index of the case or volume called `key`.

        Raises:
            CaseError: None has that key.
        """
        try:
            return self.keys.index(key)
        except ValueError:
            first = f", the first is {self.keys[0]!r}" if len(self) else ""
            raise CaseError(
                f"{self.noun} source {self.name!r} (split {self.split!r}) has no {self.noun} "
                f"{key!r}; it has {len(self)} keys{first}"
            ) from None

    def __deepcopy__(self, memo: dict) -> Self:
        # gymnasium deep-copies the kwargs of a spec: a source is shared, never duplicated.
        return self


class InMemory(Source[OneCase]):
    """A `Source` over cases or volumes that are already in memory.

    Args:
        cases: The cases; keys must be unique.
        targets: Vocabulary; by default the distinct target texts in order of appearance.
        name: Shown in tables and error messages.
        split: Shown in error messages.
        left_out: See `Source`; of the source that the cases were taken from.

    Raises:
        CaseError: No cases, something else among them, or a repeated key.
    """

    kind: ClassVar[type] = Case

    def __init__(
        self,
        cases: Iterable[OneCase],
        targets: Sequence[str] | None = None,
        name: str = "list",
        split: str = "",
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._cases = tuple(cases)
        self.name, self.split, self.left_out = name, split, dict(left_out or {})
        source, kind = f"{self.noun} source {name!r}", self.kind.__name__
        if not self._cases:
            raise CaseError(f"{source} is empty; give at least one {kind}")
        for case in self._cases:
            if not isinstance(case, self.kind):
                raise CaseError(
                    f"{source} holds a {type(case).__name__}, expected medseg_gym {kind}"
                )
        self._index = {case.key: i for i, case in enumerate(self._cases)}
        if len(self._index) < len(self._cases):
            raise CaseError(f"{source} has repeated keys; keys must be unique")
        self._targets = tuple(targets or dict.fromkeys(case.target for case in self._cases))

    @property
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""
        return tuple(self._index)

    @property
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts."""
        return self._targets

    def __getitem__(self, index: int) -> OneCase:
        return self._cases[index]

    def index_of(self, key: str) -> int:
        """Return the index of the case or volume called `key`."""
        return self._index[key] if key in self._index else super().index_of(key)


def check_split(split: str) -> None:
    """Refuse what is no split.

    Raises:
        CaseError: It is none, and not "all" either.
    """
    if split not in (*SPLITS, ALL, AUTO):
        known = (*SPLITS, ALL, AUTO)
        raise CaseError(
            f"unknown split {split!r}{nearest(str(split), known)}; use one of "
            f"{', '.join(SPLITS)}, {ALL} for all of them together, or {AUTO} for test, or all of "
            "few cases without splits"
        )


def open_splits(spec: str, load: Callable[[str, str], AnySource]) -> dict[str, AnySource]:
    """Open every split that a spec has.

    Args:
        spec: As `load` takes it.
        load: `load_cases` or `load_volumes`.

    Returns:
        Source by split, in the order of `SPLITS`; at least one.

    Raises:
        CaseError: See `load`; or there is no split at all.
    """
    sources: dict[str, AnySource] = {}
    problem: EmptySplit | None = None
    for split in SPLITS:
        try:
            sources[split] = load(spec, split)
        except EmptySplit as error:
            problem = error
    if not sources and problem is not None:
        raise problem
    return sources


def open_auto(text: str, load: Callable[[str, str], AnySource]) -> AnySource:
    """Open the test split; or all cases, where chance alone would leave next to none of them in it.

    Data that name no splits are divided by a hash of their groups. Of a handful of images the test
    split may then hold one or none; fewer groups than an interval needs are no test of anything.

    Args:
        text: The spec.
        load: `load_cases` or `load_volumes`.

    Raises:
        CaseError: See `load`; also where the data have splits of their own, and no test split.
    """
    try:
        test = load(text, "test")
    except EmptySplit as problem:
        if not problem.drawn:
            raise
    else:
        if not test.drawn_split or (test.group_count() or 0) >= MIN_GROUPS:
            return test
    return load(text, ALL)


def open_spec(
    registry: Registry[AnySource],
    text: str,
    split: str,
    kind: type[Any],
    listed: Callable[..., AnySource],
    wanted: str,
) -> AnySource:
    """Open what a registry holds, or what a user wrote, as a source.

    Args:
        registry: Of sources.
        text: The spec.
        split: "train", "val" or "test".
        kind: Class of sources.
        listed: Makes a source of cases in memory.
        wanted: Shown in the error about anything else.

    Raises:
        CaseError: An unknown spec, options without a function, or something that is no source.
    """
    spec = registry.parse(text)
    source: Any = registry.find(spec)  # what a user wrote may be anything
    if callable(source):
        beside: tuple[str, ...] = (split,) if not spec.is_own or _takes_split(source) else ()
        source = registry.build(spec, source, *beside)
    elif spec.options:
        raise CaseError(f"{text}: options go with a function, not with a {type(source).__name__}")
    if isinstance(source, kind):
        opened: AnySource = source
        if not isinstance(opened.keys, Sequence):
            raise CaseError(
                f"{text}: its keys are a {type(opened.keys).__name__}; a list of texts is wanted"
            )
        return opened
    if isinstance(source, Iterable) and not isinstance(source, str):
        return listed(list(source), name=text, split=split)
    raise CaseError(
        f"{text}: {wanted} are wanted, or a function that returns them; got a "
        f"{type(source).__name__}"
    )


def _takes_split(factory: Callable[..., Any]) -> bool:
    """Return whether a user's class or function wants the split as its first argument."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # built in, without a signature
        return True
    if not parameters:
        return False
    first = parameters[0]
    if first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        return False
    return first.name == "split" or first.default is first.empty
