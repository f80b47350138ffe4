"""Sources of cases: the CaseSource contract and `load_cases`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from medseg_gym.cases.case import Case, ReadOnlyCase
from medseg_gym.errors import CaseError, nearest
from medseg_gym.object_paths import load_object
from medseg_gym.registry import Factory, Registry

if TYPE_CHECKING:
    from typing_extensions import Self

    from medseg_gym.cases.volume_source import VolumeSource

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
        left_out: See `CaseSource`.
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


class CaseSource(Source[Case]):
    """A `Source` of cases, which may be slices of volumes."""

    @property
    def volumes(self) -> VolumeSource | None:
        """The volumes whose slices the cases are; None where cases are images of their own."""
        return None

    def place_of(self, key: str) -> SlicePlace | None:
        """Return the volume that a case is a slice of; None for an image of its own."""
        del key
        return None


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


class CaseList(InMemory[Case], CaseSource):
    """A CaseSource over cases that are already in memory, see `InMemory`."""


CASES: Registry[CaseSource] = Registry(
    "case spec",
    "medseg_gym.cases",
    "factory(argument, split, **options)",
    {
        "samples": "medseg_gym.cases.samples:load",
        "phantoms": "medseg_gym.cases.phantoms:load",
        "biomedparse": "medseg_gym.cases.biomedparse:load",
        "parquet": "medseg_gym.cases.parquet:load",
        "folder": "medseg_gym.cases.folder:load",
        "nifti": "medseg_gym.cases.nifti:load",
        "npz": "medseg_gym.cases.npz:load",
        "dicom": "medseg_gym.cases.dicom:load",
        "image": "medseg_gym.cases.image_files.one_image:load",
        "volume": "medseg_gym.cases.volume_slices:load",
        "phantoms-volume": "medseg_gym.cases.volume_slices:load_phantoms",
        "pool": "medseg_gym.cases.derived.pool:load",
        "unlabelled": "medseg_gym.cases.unlabelled:load",
    },
    CaseError,
    has_argument=True,
    own_signature="function(split, **options) or function(**options)",
)


def names() -> tuple[str, ...]:
    """Kinds that `load_cases` knows, sorted."""
    return CASES.names()


def register(kind: str, factory: str | Factory[CaseSource]) -> None:
    """Make `load_cases("kind:ARGUMENT?option=value", split)` call a factory.

    Args:
        kind: See `Registry.register`.
        factory: Called as `factory("ARGUMENT", split, option=value)`; or "module:name".

    Raises:
        CaseError: The kind is taken or cannot be written in a spec.
    """
    CASES.register(kind, factory)


def load_cases(
    spec: str | CaseSource | Sequence[Case] = "samples", split: str = "train"
) -> CaseSource:
    """Open a case source; the `make` of the registry of cases.

    Args:
        spec: "samples" (real cases inside the package), "phantoms" or "phantoms:SCENE" (synthetic,
            made on demand), files on disk as "biomedparse:PATH", "parquet:PATH", "folder:PATH",
            "nifti:PATH", "npz:PATH" or "dicom:PATH" (docs/how-to/data.md), the slices of volumes as
            "volume:SCAN?truth=LABELS" or "phantoms-volume", one image as
            "image:FILE?truth=MASK&target=TEXT", "pool:SIZE:SPEC" (some
            cases of another spec, drawn once and kept in memory), "unlabelled:PATH" (images
            without a truth that people dropped onto the page of `medseg serve`), a registered kind,
            "package.module:Name" or "path/file.py:Name" (a CaseSource, a list of Cases or a
            `function(split, **options)` of your own; one that takes no split has the same cases in
            every split), a CaseSource (returned as it is), or a
            sequence of Cases.
        split: "train", "val", "test", or "all" of them together; "auto" is test, or all where the
            data name no splits and are few (see `open_auto`). Ignored where `spec` is a source or a
            sequence.

    Returns:
        The source; the same object for the same text spec and split.

    Raises:
        CaseError: Unknown spec or split, or the source's files cannot be used.

    Example:
        >>> from medseg_gym.cases import load_cases
        >>> source = load_cases("samples", "test")
        >>> source[0].modality, source[0].target in source.targets
        ('CT', True)
        >>> load_cases("phantoms:abdomen", "train")[0].synthetic
        True
    """
    if isinstance(spec, CaseSource):
        return spec
    if not isinstance(spec, str):
        if not isinstance(spec, Iterable):
            raise CaseError(f"cases must be a text spec, a CaseSource or Cases, got {spec!r}")
        return CaseList(spec)
    check_split(split)
    return _open(spec, split)


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


def load_splits(spec: str) -> dict[str, CaseSource]:
    """Open every split of cases that a spec has; see `open_splits`."""
    return open_splits(spec, load_cases)


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


@lru_cache(maxsize=64)
def _open(text: str, split: str) -> CaseSource:
    if split == AUTO:
        open_auto: Callable[..., CaseSource]
        open_auto = load_object("medseg_gym.cases.derived.auto_split:open_auto")
        return open_auto(text, load_cases)
    if split == ALL:
        # By its path, as formats are: it stands on this module.
        all_cases: Callable[..., CaseSource]
        all_cases = load_object("medseg_gym.cases.derived.all_splits:AllCases")
        return all_cases(load_splits(text))
    return open_spec(CASES, text, split, CaseSource, CaseList, "a CaseSource or Cases")


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
