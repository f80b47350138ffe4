"""Read the reinforcement-learning parquet."""

from __future__ import annotations

import hashlib
import posixpath
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

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
from medseg_gym.cases.parquet.rows import RowReader

COLUMNS = ("images", "reward_model", "extra_info")
NEEDED = ("images", "reward_model.ground_truth", "extra_info.target_description")


class ParquetFormat(DatasetFormat):
    """Rows with `images`, `reward_model.ground_truth` and `extra_info.target_description`.

    The path is a file or a folder of files. The split is the row's `extra_info.split`, or else
    what the file name says, or else chosen by group; rows with the same image are one group.
    Foreground is a value above 127, or the other one where a mask has 0 and one other value. A
    image that was scaled down, as for a language model, is scaled to the size of its mask.
    """

    name = "parquet"
    version = 2
    options = ImageFileOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self._images = ImageOptions.of(spec)
        self._readers: dict[str, RowReader] = {}
        self._lock = threading.Lock()

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List every row; a file's rows are remembered until it changes.

        Args:
            file_cache: Holds the rows.

        Yields:
            Records in the order of files and rows, and Defects.
        """
        counts = Counts()
        for listed in walk(self.root):
            if isinstance(listed, Defect):
                yield listed
            elif listed and not listed.lower().endswith((".parquet", ".pq")):
                folder, base = posixpath.split(listed)
                counts.add(folder, "a file that is not parquet", base)
            else:
                kept = file_cache.remember(
                    listed, [self.path(listed)], partial(self._index_file, listed)
                )
                yield from (Defect(**defect) for defect in kept["defects"])
                for row in kept["rows"]:
                    spacing = row["spacing"] and tuple(row["spacing"])
                    yield Record(**{**row, "files": (listed,), "spacing": spacing})
        yield from counts.notes()

    def read(self, record: Record) -> Pixels:
        """Decode image and mask of a row.

        Raises:
            Damaged: The file or the row cannot be used.
        """
        name = record.files[0]
        group, at, number = record.place
        place = f"row {number}"
        row = self._reader(name).row(group, at)
        image = self._images.image(_image_bytes(row, name, place), name, f"{place}: images[0]")
        labels = self._images.labels(_mask_bytes(row, name, place), name, f"{place}: ground_truth")
        if not ((labels == 0) | (labels == labels.max())).all():
            labels = labels > 127
        mask = as_mask(labels, name, f"{place}: ground_truth")
        return Pixels(_fit(image, mask, name, place), mask)

    def _reader(self, name: str) -> RowReader:
        with self._lock:
            if name not in self._readers:
                self._readers[name] = RowReader(self.path(name), name, COLUMNS, self.cache)
            return self._readers[name]

    def _index_file(self, name: str) -> dict[str, list]:
        rows: list[dict[str, Any]] = []
        defects: list[dict[str, Any]] = []
        counts = Counts()
        try:
            reader = RowReader(self.path(name), name, COLUMNS, self.cache)
            for missing in _missing_columns(reader):
                raise Damaged(
                    name,
                    f"the column {missing} is missing; it has {', '.join(reader.schema.names)}",
                )
            for group in range(reader.groups):
                self._index_group(name, reader, group, rows, defects, counts)
        except Damaged as error:
            defects.append(error.defect.as_dict())
        if not rows and not defects:
            defects.append(Defect(name, "has no rows").as_dict())
        return {"rows": rows, "defects": defects + [note.as_dict() for note in counts.notes()]}

    def _index_group(
        self,
        name: str,
        reader: RowReader,
        group: int,
        rows: list[dict[str, Any]],
        defects: list[dict[str, Any]],
        counts: Counts,
    ) -> None:
        first = reader.first_row(group)
        try:
            for at, row in enumerate(reader.rows(group)):
                try:
                    fields = self._row(name, first + at, row, counts)
                    rows.append(fields | {"place": [group, at, first + at]})
                except Damaged as error:
                    defects.append(error.defect.as_dict())
        except Damaged as error:  # the other row groups may be sound
            defects.append(error.defect.as_dict())

    def _row(self, name: str, number: int, row: dict[str, Any], counts: Counts) -> dict[str, Any]:
        place = f"row {number}"
        extra = row.get("extra_info") or {}
        target = row.get("extra_info.target_description", extra.get("target_description"))
        if not isinstance(target, str) or not target.strip():
            raise Damaged(name, "extra_info.target_description is empty", place)
        image, _ = _image_bytes(row, name, place), _mask_bytes(row, name, place)
        if len(row["images"]) > 1:
            counts.add(name, "has more than one image; the first is taken", place)
        split = split_named(_text(extra, "split") or posixpath.basename(name or self.root.name))
        spacing = extra.get("spacing")
        source = _text(extra, "source")
        return {
            "key": _text(extra, "key") or f"{name or self.root.name}#{number:06d}",
            "target": target,
            "split": split,
            "group": _text(extra, "group") or _hash(image),
            "modality": _text(extra, "modality") if "modality" in extra else modality_of(target),
            "spacing": spacing if isinstance(spacing, list) and len(spacing) == 2 else None,
            "source": source,
            "synthetic": extra.get("synthetic") is True,
        }


def _missing_columns(reader: RowReader) -> Iterator[str]:
    for needed in NEEDED:
        column, _, field = needed.partition(".")
        if needed in reader.schema.names:
            continue
        if column not in reader.schema.names:
            yield needed
        elif field:
            kind = reader.schema.field(column).type
            if not hasattr(kind, "get_field_index") or kind.get_field_index(field) < 0:
                yield needed


def _text(extra: dict[str, Any], field: str) -> str:
    value = extra.get(field)
    return value if isinstance(value, str) else ""


def _image_bytes(row: dict[str, Any], name: str, place: str) -> bytes:
    images = row.get("images")
    if not isinstance(images, list) or not images:
        raise Damaged(name, "images is empty", place)
    return _bytes(images[0], "images[0]", name, place)


def _mask_bytes(row: dict[str, Any], name: str, place: str) -> bytes:
    if "reward_model.ground_truth" in row:
        truth = row["reward_model.ground_truth"]
    else:
        truth = (row.get("reward_model") or {}).get("ground_truth")
    return _bytes(truth, "reward_model.ground_truth", name, place)


def _bytes(value: Any, field: str, name: str, place: str) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes")
    if not isinstance(value, bytes):
        what = "null" if value is None else f"a {type(value).__name__}"
        raise Damaged(name, f"{field} is {what}, expected the bytes of an image", place)
    if not value:
        raise Damaged(name, f"{field} has 0 bytes", place)
    return value


def _hash(image: bytes) -> str:
    return "image-" + hashlib.blake2b(image, digest_size=10).hexdigest()


def _fit(image: np.ndarray, mask: np.ndarray, name: str, place: str) -> np.ndarray:
    """Scale an image of the mask's proportions to the mask's size."""
    (h, w), (rows, columns) = image.shape[:2], mask.shape
    if (h, w) == (rows, columns):
        return image
    # A side was rounded to whole pixels: the proportions agree as far as that allows.
    if abs(h * columns - w * rows) > max(rows, columns, h, w):
        raise Damaged(
            name, f"the mask is {mask.shape} but its image is {(h, w)} (height, width)", place
        )
    size = (columns, rows)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
