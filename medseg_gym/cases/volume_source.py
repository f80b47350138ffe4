"""Sources of volumes: the VolumeSource contract and `load_volumes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import ClassVar

from medseg_gym.cases.source import (
    ALL,
    AUTO,
    InMemory,
    Source,
    check_split,
    open_auto,
    open_spec,
    open_splits,
)
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.errors import CaseError
from medseg_gym.object_paths import load_object
from medseg_gym.registry import Factory, Registry


class VolumeSource(Source[VolumeCase]):
    """A `Source` of volumes; what a `CaseSource` is for images."""

    noun: ClassVar[str] = "volume"
    name: str = "volumes"

    def depth(self, index: int) -> int:
        """Return how many slices volume `index` has; by default it is read for that."""
        return self[index].depth


class VolumeList(InMemory[VolumeCase], VolumeSource):
    """A VolumeSource over volumes that are already in memory, see `InMemory`."""

    kind: ClassVar[type] = VolumeCase


VOLUMES: Registry[VolumeSource] = Registry(
    "volume spec",
    "medseg_gym.volumes",
    "factory(argument, split, **options)",
    {
        "phantoms-volume": "medseg_gym.cases.phantoms.volumes:load",
        "volume": "medseg_gym.cases.volume_file:load",
        "nifti": "medseg_gym.cases.files.volumes:load",
        "bids": "medseg_gym.cases.files.volumes:load",
        "npz": "medseg_gym.cases.files.volumes:load",
        "dicom": "medseg_gym.cases.files.volumes:load",
    },
    CaseError,
    has_argument=True,
    own_signature="function(split, **options) or function(**options)",
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
        split: "train", "val", "test", "all", or "auto", as in `load_cases`; ignored where
            `spec` is a source or a sequence.

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
    check_split(split)
    return _open(spec, split)


@lru_cache(maxsize=16)
def _open(text: str, split: str) -> VolumeSource:
    if split == AUTO:
        return open_auto(text, load_volumes)
    if split == ALL:
        # By its path, as formats are: it stands on this module.
        all_volumes: Callable[..., VolumeSource]
        all_volumes = load_object("medseg_gym.cases.derived.all_splits:AllVolumes")
        return all_volumes(open_splits(text, load_volumes))
    return open_spec(VOLUMES, text, split, VolumeSource, VolumeList, "a VolumeSource or volumes")


def register(kind: str, factory: str | Factory[VolumeSource]) -> None:
    """Make `load_volumes("kind:ARGUMENT?option=value", split)` call a factory.

    Raises:
        CaseError: The kind is taken or cannot be written in a spec.
    """
    VOLUMES.register(kind, factory)


def names() -> tuple[str, ...]:
    """Kinds that `load_volumes` knows, sorted."""
    return VOLUMES.names()
