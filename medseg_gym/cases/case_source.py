"""Sources of cases: the CaseSource contract and `load_cases`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.initial.providers import take_option
from medseg_gym.cases.source import (
    ALL,
    AUTO,
    InMemory,
    SlicePlace,
    Source,
    check_split,
    open_auto,
    open_spec,
    open_splits,
)
from medseg_gym.errors import CaseError
from medseg_gym.object_paths import load_object
from medseg_gym.registry import Factory, Registry

if TYPE_CHECKING:
    from medseg_gym.cases.volume_source import VolumeSource


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

    def outlines(self, index: int) -> list[tuple[str, np.ndarray]]:
        """Return targets that are known in the image of a case, with their masks, H x W bool.

        Here that of the case alone; a source that knows others of the same image adds them.
        """
        case = self[index]
        return [(case.target, case.mask)]


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
        "bids": "medseg_gym.cases.nifti:load_bids",
        "npz": "medseg_gym.cases.npz:load",
        "dicom": "medseg_gym.cases.dicom:load",
        "coco": "medseg_gym.cases.coco:load",
        "yolo": "medseg_gym.cases.yolo:load",
        "labelme": "medseg_gym.cases.labelme:load",
        "cvat": "medseg_gym.cases.cvat:load",
        "ome": "medseg_gym.cases.ome:load",
        "wsi": "medseg_gym.cases.wsi:load",
        "image": "medseg_gym.cases.image_files.one_image:load",
        "volume": "medseg_gym.cases.derived.volume_slices:load",
        "phantoms-volume": "medseg_gym.cases.derived.volume_slices:load_phantoms",
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
            "nifti:PATH", "bids:PATH", "npz:PATH" or "dicom:PATH" (docs/how-to/data.md), exports of
            annotation tools as "coco:PATH", "yolo:PATH", "labelme:PATH", "cvat:PATH", "ome:PATH" or
            "wsi:PATH" (docs/how-to/annotation_formats.md), the slices of volumes as
            "volume:SCAN?truth=LABELS" or "phantoms-volume", one image as
            "image:FILE?truth=MASK&target=TEXT", "pool:SIZE:SPEC" (some
            cases of another spec, drawn once and kept in memory), "unlabelled:PATH" (images
            without a truth that people dropped onto the page of `medseg serve`), a registered kind,
            "package.module:Name" or "path/file.py:Name" (a CaseSource, a list of Cases or a
            `function(split, **options)` of your own; one that takes no split has the same cases in
            every split), a CaseSource (returned as it is), or a
            sequence of Cases. The option `initial_mask=PROVIDER` of any text has episodes begin
            with a mask (`medseg_gym.cases.initial`).
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


def load_splits(spec: str) -> dict[str, CaseSource]:
    """Open every split of cases that a spec has; see `open_splits`."""
    return open_splits(spec, load_cases)


@lru_cache(maxsize=64)
def _open(text: str, split: str) -> CaseSource:
    if split == AUTO:
        return open_auto(text, load_cases)
    if split == ALL:
        # By its path, as formats are: it stands on this module.
        all_cases: Callable[..., CaseSource]
        all_cases = load_object("medseg_gym.cases.derived.all_splits:AllCases")
        return all_cases(load_splits(text))
    inner, begun = take_option(text)
    if begun is not None:
        with_masks: Callable[..., CaseSource]
        with_masks = load_object("medseg_gym.cases.initial.source:WithInitialMasks")
        return with_masks(load_cases(inner, split), begun)
    return open_spec(CASES, text, split, CaseSource, CaseList, "a CaseSource or Cases")
