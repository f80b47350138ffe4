"""Read the BiomedParse format."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medseg_gym.cases.biomedparse.annotations import Entry, read_entries
from medseg_gym.cases.drawn.kept_fields import kept_fields
from medseg_gym.cases.files.access.guards import read_json, require_file
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.records import Pixels, Record
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.image_files.masks import as_mask
from medseg_gym.cases.image_files.options import ImageFileOptions, ImageOptions

_ANNOTATIONS = {"train.json", "val.json", "valid.json", "validation.json", "test.json"}
_LOSSY = (".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class BiomedParseOptions(ImageFileOptions):
    """Options of `BiomedParseFormat`."""

    sentences: Literal["all", "first"] = "all"
    """Number of a mask's sentences that become cases."""


class BiomedParseFormat(DatasetFormat):
    """Images and masks named by the annotations of `train.json`, `val.json` and `test.json`.

    The path is a data set or any folder above some. A mask with several sentences gives a case for
    each; an image is its own group unless the option `group` says how file names tell patients or
    volumes. Foreground is mask > 0. The modality comes from the file name
    (`NAME_MODALITY_SITE.png`), or else from the sentence.
    """

    name = "biomedparse"
    version = 2
    options = BiomedParseOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self._first_only = spec.read(BiomedParseOptions).sentences == "first"
        self._images = ImageOptions.of(spec)

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List every annotation; the JSON files are read each time, pixels never.

        Args:
            file_cache: Not needed.

        Yields:
            Records in the order of the files, and Defects.
        """
        files: dict[str, bool] = {}  # whether an annotation names it
        for listed in walk(self.root):
            if isinstance(listed, Defect):
                yield listed
            else:
                files[listed] = False
        if "" in files:
            yield Defect("", "is a file; give the folder of the data set")
            return
        counts = Counts()
        annotated: set[str] = set()  # folders of images and masks that some JSON speaks of
        for name in [name for name in files if posixpath.basename(name) in _ANNOTATIONS]:
            files[name] = True
            split = split_named(posixpath.basename(name))
            folder = name[: -len(".json")]
            annotated |= {folder, folder + "_mask"}
            try:
                for entry in read_entries(read_json(self.path(name), name), name, split, counts):
                    if isinstance(entry, Defect):
                        yield entry
                    else:
                        yield from self._records(entry, name, folder, split, files, counts)
            except Damaged as error:
                yield error.defect
        yield from counts.notes()
        yield from _strays(files, annotated)

    def _records(
        self,
        entry: Entry,
        name: str,
        folder: str,
        split: str,
        files: dict[str, bool],
        counts: Counts,
    ) -> Iterator[Record | Defect]:
        image, mask = f"{folder}/{entry.image}", f"{folder}_mask/{entry.mask}"
        key = str(entry.extra.get("key") or f"{folder}/{entry.mask}")
        for file, field in ((image, "file_name"), (mask, "mask_file")):
            if file in files:
                files[file] = True
                continue
            try:  # hidden, or named through a link
                require_file(self.path(file), file)
            except Damaged as error:
                where = posixpath.dirname(file)
                cause = f"{field} {posixpath.basename(file)!r} under {where}/: {error.defect.cause}"
                yield Defect(name, cause, entry.place, key)
                return
        if mask.lower().endswith(_LOSSY):
            counts.add(
                name, "a mask is a JPEG, whose blurred rim counts as foreground", entry.place
            )
        chosen = entry.sentences[:1] if self._first_only else entry.sentences
        if len(chosen) < len(entry.sentences):
            counts.add(name, "sentences are left out, as sentences=first says", entry.place)
        for number, text in chosen:
            try:
                yield Record(
                    key=f"{key}#{number}" if number else key,
                    target=text,
                    files=(image, mask),
                    split=split,
                    **_fields(entry, image, text),
                )
            except (TypeError, ValueError) as error:
                yield Defect(name, f"the fields that a writer kept: {error}", entry.place, key)

    def read(self, record: Record) -> Pixels:
        """Decode image and mask.

        Raises:
            Damaged: One of them cannot be used.
        """
        image, mask = record.files
        return Pixels(
            self.cache.get(
                image,
                lambda: self._images.image(self.path(image), image),
                lambda a: int(a.nbytes),
            ),
            self.cache.get(mask, lambda: self._mask(mask), lambda a: int(a.nbytes)),
        )

    def _mask(self, mask: str) -> np.ndarray:
        return as_mask(self._images.labels(self.path(mask), mask), mask)


def _fields(entry: Entry, image: str, text: str) -> dict[str, Any]:
    """Fields of a record that are not the format's own: from the writer, or guessed by name."""
    extra = entry.extra
    if not extra:
        stem = posixpath.splitext(posixpath.basename(image))[0]
        convention = stem.split("_")[-2:-1] if stem.count("_") >= 2 else []
        return {"modality": modality_of(*convention, text, stem)}
    return kept_fields(extra)


def _strays(files: dict[str, bool], annotated: set[str]) -> Iterator[Defect]:
    """Name folders of masks without annotations, and count files that nothing speaks of."""
    folders = {posixpath.dirname(name) for name in files}
    for folder in sorted(folders - annotated):
        split = split_named(posixpath.basename(folder))
        if split and folder + "_mask" in folders:
            annotated |= {folder, folder + "_mask"}
            yield Defect(folder, f"the annotations {posixpath.basename(folder)}.json are missing")
    counts = Counts()
    for name, used in files.items():
        if used:
            continue
        folder, base = posixpath.split(name)
        if folder in annotated:
            counts.add(folder, "a file that no annotation names", base)
        elif base.lower().endswith(".json"):
            counts.add(folder, "not read: only train.json, val.json and test.json are", base)
        else:
            counts.add(folder, "a file that belongs to no data set", base)
    yield from counts.notes()
