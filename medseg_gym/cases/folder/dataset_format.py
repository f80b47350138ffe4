"""Read folders of images and masks."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.records import Pixels, Record
from medseg_gym.cases.files.spec import FileSpec, WrongOption
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.folder.kinds import (
    IGNORED,
    binary,
    describe_value,
    names_of_values,
    numbers,
    values_of,
)
from medseg_gym.cases.folder.pairing import Role, naming
from medseg_gym.cases.image_files.images import SUFFIXES
from medseg_gym.cases.image_files.options import ImageFileOptions, ImageOptions
from medseg_gym.errors import CaseError


@dataclass
class _Pair:
    images: list[tuple[str, Role]] = field(default_factory=list)
    masks: list[tuple[str, Role]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FolderOptions(ImageFileOptions):
    """Options of `FolderFormat`."""

    images: str = ""
    """Pattern of image files; see `Patterns`."""

    masks: str = ""
    """Pattern of mask files; see `Patterns`."""

    kind: Literal["binary", "index", "instance", "color"] = "binary"
    """"index": values are classes; "instance": values are objects of one class; "color": colours
    are classes."""

    labels: str = ""
    """Names of values for index and color: `1:liver,2:spleen,255:-` (`-` ignores a value), or a
    JSON file of the same."""

    target: str = ""
    """Target of binary and instance masks, where no `{target}` says it."""

    threshold: float | None = None
    """Binary foreground is above it, 0 to 65535."""

    spacing: tuple[float, float] | None = None
    """ROW,COLUMN millimetres a pixel."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 65535:
            raise WrongOption("threshold", "give a number from 0 to 65535")
        if self.spacing is not None and min(self.spacing) <= 0:
            raise WrongOption("spacing", "give positive millimetres")


class FolderFormat(DatasetFormat):
    """Images and masks that belong together by name.

    Without the options `images` and `masks` the usual names are understood (see `UsualNames`).
    Every mask file of an image gives a case (kinds binary) or one for each value in it. The split
    is `{split}` of the pattern, or a folder called after one, or else chosen by group; an image is
    its own group unless `{group}` or the option `group` says otherwise.
    """

    name = "folder"
    version = 2
    options = FolderOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        given = spec.read(FolderOptions)
        self._kind = given.kind
        try:
            self._naming = naming(given.images, given.masks)
        except CaseError as error:
            raise CaseError(f"{spec}: {error}") from error
        by_value = self._kind in ("index", "color")
        self._names = names_of_values(spec, self._kind) if by_value else {}
        self._target = given.target.strip()
        if not by_value and not self._target and "{target}" not in given.masks:
            raise CaseError(
                f"{spec}: nothing says what the masks show; give target=polyp or a {{target}} in "
                "the pattern masks=, or name the values with kind=index&labels=1:liver,2:spleen"
            )
        self._threshold = given.threshold
        self._images = ImageOptions.of(spec)
        self._spacing = given.spacing

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """Pair images with masks; what values a mask has is remembered until it changes.

        Args:
            file_cache: Holds the values of index, instance and colour masks.

        Yields:
            Records by name, and Defects.
        """
        pairs: dict[str, _Pair] = {}
        counts = Counts()
        for path in walk(self.root):
            if isinstance(path, Defect):
                yield path
            elif not path:
                yield Defect("", "is a file; give the folder of images and masks")
            elif not path.lower().endswith(SUFFIXES):
                folder, base = posixpath.split(path)
                counts.add(folder, "a file that is no image", base)
            elif (role := self._naming.role(path)) is None:
                folder, base = posixpath.split(path)
                counts.add(folder, "an image that fits neither pattern", base)
            else:
                pair = pairs.setdefault(role.identity, _Pair())
                (pair.masks if role.mask else pair.images).append((path, role))
        empty: list[str] = []
        for identity in sorted(pairs):
            yield from self._pair(pairs[identity], file_cache, counts, empty)
        if empty:
            times = f" ({len(empty)} masks, here the first)" if len(empty) > 1 else ""
            yield Defect(empty[0], f"has no value but 0: it gives no case{times}", note=True)
        yield from counts.notes()

    def _pair(
        self, pair: _Pair, file_cache: FileCache, counts: Counts, empty: list[str]
    ) -> Iterator[Record | Defect]:
        if not pair.images:
            yield from (Defect(mask, "the mask has no image") for mask, _ in pair.masks)
            return
        image, role = pair.images[0]
        for other, _ in pair.images[1:]:
            yield Defect(other, f"has the same name as the image {image!r}")
        if not pair.masks:
            yield Defect(image, "the image has no mask")
        for mask, mask_role in pair.masks:
            split = split_named(role.split or mask_role.split) or _split_in(image)
            common = {
                "files": (image, mask),
                "split": split,
                "group": role.group or mask_role.group or image,
                "spacing": self._spacing,
            }
            if self._kind == "binary":
                yield _record(mask, mask_role.target or self._target, None, common)
            elif values := file_cache.remember(
                mask, [self.path(mask)], partial(self._values, mask)
            ):
                yield from self._by_value(mask, mask_role, values, common, counts)
            else:
                empty.append(mask)

    def _by_value(
        self, mask: str, role: Role, values: Any, common: dict[str, Any], counts: Counts
    ) -> Iterator[Record | Defect]:
        if isinstance(values, dict):
            yield Defect(**values)
            return
        for value, area in values:
            shown = describe_value(value, self._kind)
            if self._kind == "instance":
                text = role.target or self._target
            elif value in self._names:
                text = self._names[value]
            else:
                cause = f"the value {shown} ({area} pixels) has no name in the option labels"
                yield Defect(mask, cause, key=f"{mask}#{shown}")
                continue
            if text == IGNORED:
                folder, base = posixpath.split(mask)
                counts.add(folder, f"the value {shown} is left out, as labels={shown}:- says", base)
            else:
                yield _record(f"{mask}#{shown}", text, value, {**common, "area": area})

    def _values(self, mask: str) -> Any:
        try:
            return values_of(self._labels(mask), self._kind, mask)
        except Damaged as error:
            return error.defect.as_dict()

    def read(self, record: Record) -> Pixels:
        """Decode image and mask.

        Raises:
            Damaged: One of them cannot be used.
        """
        image, mask = record.files
        pixels = self.cache.get(image, lambda: self._image(image), lambda a: int(a.nbytes))
        if self._kind == "binary":
            return Pixels(pixels, binary(self._labels(mask), mask, self._threshold))
        values = self.cache.get(mask, lambda: self._numbers(mask), lambda a: int(a.nbytes))
        return Pixels(pixels, values == record.place)

    def _image(self, image: str) -> np.ndarray:
        return self._images.image(self.path(image), image)

    def _labels(self, mask: str) -> np.ndarray:
        return self._images.labels(self.path(mask), mask, kind=self._kind)

    def _numbers(self, mask: str) -> np.ndarray:
        return numbers(self._labels(mask), self._kind, mask)


def _record(key: str, text: str, place: Any, common: dict[str, Any]) -> Record:
    modality = modality_of(text, key)
    return Record(key=key, target=text, place=place, modality=modality, **common)


def _split_in(path: str) -> str:
    splits = {split_named(folder) for folder in path.split("/")[:-1]} - {""}
    return splits.pop() if len(splits) == 1 else ""
