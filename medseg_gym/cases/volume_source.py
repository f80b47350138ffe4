"""Sources of volumes: the VolumeSource contract and `load_volumes`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from medseg_gym.cases.source import SPLITS
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.errors import CaseError
from medseg_gym.registry import Factory, Registry


class VolumeSource(ABC):
    """A lazy, indexable collection of volumes; what a `CaseSource` is for images.

    A subclass gives `keys`, `targets` and `__getitem__`.

    Attributes:
        name: Shown in tables and error messages.
        split: Shown in error messages.
        left_out: Counts of what the reader left out, by reason.
    """

    name: str = "volumes"
    split: str = ""
    left_out: Mapping[str, int] = MappingProxyType({})

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts, the same for all splits."""

    @abstractmethod
    def __getitem__(self, index: int) -> VolumeCase:
        """Read volume `index` (0 <= index < len)."""

    def depth(self, index: int) -> int:
        """Return how many slices volume `index` has; by default it is read for that."""
        return self[index].depth

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[VolumeCase]:
        for index in range(len(self)):
            yield self[index]

    def index_of(self, key: str) -> int:
        """Return the index of the volume called `key`.

        Raises:
            CaseError: No volume has that key.
        """
        try:
            return self.keys.index(key)
        except ValueError:
            first = f", the first is {self.keys[0]!r}" if len(self) else ""
            raise CaseError(
                f"volume source {self.name!r} (split {self.split!r}) has no volume {key!r}; "
                f"it has {len(self)} keys{first}"
            ) from None

    def __deepcopy__(self, memo: dict) -> VolumeSource:
        # gymnasium deep-copies the kwargs of a spec: a source is shared, never duplicated.
        return self


class VolumeList(VolumeSource):
    """A VolumeSource over volumes that are already in memory.

    Args:
        cases: The volumes; keys must be unique.
        targets: Vocabulary; by default the distinct target texts in order of appearance.
        name: See `VolumeSource`.
        split: See `VolumeSource`.
        left_out: See `VolumeSource`.

    Raises:
        CaseError: No volumes, something that is not a VolumeCase, or a repeated key.
    """

    def __init__(
        self,
        cases: Iterable[VolumeCase],
        targets: Sequence[str] | None = None,
        name: str = "list",
        split: str = "",
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._cases = tuple(cases)
        self.name, self.split, self.left_out = name, split, dict(left_out or {})
        if not self._cases:
            raise CaseError(f"volume source {name!r} is empty; give at least one VolumeCase")
        for case in self._cases:
            if not isinstance(case, VolumeCase):
                raise CaseError(
                    f"volume source {name!r} holds a {type(case).__name__}, expected a VolumeCase"
                )
        self._keys = tuple(case.key for case in self._cases)
        if len(set(self._keys)) < len(self._keys):
            raise CaseError(f"volume source {name!r} has repeated keys; keys must be unique")
        self._targets = tuple(targets or dict.fromkeys(case.target for case in self._cases))

    @property
    def keys(self) -> Sequence[str]:
        """Keys, in index order."""
        return self._keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Ordered vocabulary of target texts."""
        return self._targets

    def __getitem__(self, index: int) -> VolumeCase:
        return self._cases[index]


VOLUMES: Registry[VolumeSource] = Registry(
    "volume spec",
    "medseg_gym.volumes",
    "factory(argument, split, **options)",
    {
        "phantoms-volume": "medseg_gym.cases.phantoms.volumes:load",
        "volume": "medseg_gym.cases.volume_file:load",
        "nifti": "medseg_gym.cases.files.volumes:load",
        "npz": "medseg_gym.cases.files.volumes:load",
        "dicom": "medseg_gym.cases.files.volumes:load",
    },
    CaseError,
    has_argument=True,
    own_signature="function(split, **options)",
)


def load_volumes(
    spec: str | VolumeSource | Sequence[VolumeCase] = "phantoms-volume", split: str = "train"
) -> VolumeSource:
    """Open a source of volumes; the `make` of the registry of volumes.

    Args:
        spec: "phantoms-volume" (synthetic, made on demand), "volume:IMAGE?truth=LABELS&target=TEXT"
            (a scan on disk, see `medseg_gym.cases.volume_file.load`), "nifti:PATH", "npz:PATH" or
            "dicom:PATH" (folders, read as `load_cases` reads them), a registered kind,
            "package.module:Name" or "path/file.py:Name" (a VolumeSource, volumes or a
            `function(split, **options)` of your own), a VolumeSource, or a sequence of VolumeCases.
        split: "train", "val" or "test"; ignored where `spec` is a source or a sequence.

    Raises:
        CaseError: Unknown spec or split, or files that cannot be used.

    Example:
        >>> from medseg_gym.cases.volume_source import load_volumes
        >>> case = load_volumes("phantoms-volume", "val")[0]
        >>> case.target, case.synthetic, case.image.shape[1:]
        ('liver in abdomen CT volume', True, (256, 256))
    """
    if isinstance(spec, VolumeSource):
        return spec
    if not isinstance(spec, str):
        if not isinstance(spec, Iterable):
            raise CaseError(f"volumes must be a text spec, a VolumeSource or volumes, got {spec!r}")
        return VolumeList(spec)
    if split not in SPLITS:
        raise CaseError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    return _open(spec, split)


@lru_cache(maxsize=16)
def _open(text: str, split: str) -> VolumeSource:
    spec = VOLUMES.parse(text)
    source: Any = VOLUMES.find(spec)  # what a user wrote may be anything
    if callable(source):
        source = VOLUMES.build(spec, source, split)
    elif spec.options:
        raise CaseError(f"{text}: options go with a function, not with a {type(source).__name__}")
    if isinstance(source, VolumeSource):
        return source
    if isinstance(source, Iterable) and not isinstance(source, str):
        return VolumeList(list(source), name=text, split=split)
    raise CaseError(
        f"{text}: a VolumeSource or volumes are wanted, or a function that returns them; got a "
        f"{type(source).__name__}"
    )


def register(kind: str, factory: str | Factory[VolumeSource]) -> None:
    """Make `load_volumes("kind:ARGUMENT?option=value", split)` call a factory.

    Raises:
        CaseError: The kind is taken or cannot be written in a spec.
    """
    VOLUMES.register(kind, factory)


def names() -> tuple[str, ...]:
    """Kinds that `load_volumes` knows, sorted."""
    return VOLUMES.names()
