"""Read data sets of YOLO."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from medseg_gym.cases.drawn import DrawnFormat, DrawnImage, DrawnObject
from medseg_gym.cases.drawn.shapes import draw_shape, polygon
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.image_files.images import SUFFIXES
from medseg_gym.cases.yolo.data_file import DataFile, read_data_file
from medseg_gym.cases.yolo.kept import read_kept
from medseg_gym.cases.yolo.lines import read_lines

FRACTIONS = "fractions"
"""First item of a shape of polygons in fractions of the image, which is their union."""


class YoloFormat(DrawnFormat):
    """Images and label files that data.yaml names.

    The path is the folder of data.yaml (or of another .yaml that names classes), or that file. The
    label file of `images/train/a.png` is `labels/train/a.txt`; a polygon is a line. Classes are the
    targets.
    """

    name = "yolo"

    def drawn(self, file_cache: FileCache, counts: Counts) -> Iterator[DrawnImage | Defect]:
        """See `DrawnFormat.drawn`; label files are read when they have changed."""
        name = self.only or self._data_file()
        if not name:
            yield Defect("", "has no data.yaml; give the folder that holds it, or the file itself")
            return
        try:
            data = read_data_file(self.root, name)
        except Damaged as error:
            yield error.defect
            return
        yield from data.defects
        seen: set[str] = set()
        for split, folder in data.folders:
            try:
                kept = read_kept(self.root, split)
            except Damaged as error:
                yield error.defect
                kept = {}
            for image in self._images_in(folder):
                if isinstance(image, Defect):
                    yield image
                elif image not in seen:
                    seen.add(image)
                    yield from self._image_of(image, split, data, kept, file_cache, counts)

    def _data_file(self) -> str:
        names = [entry for entry in sorted(self.root.glob("*.y*ml")) if entry.is_file()]
        usual = [entry for entry in names if entry.stem.lower() in ("data", "dataset")]
        chosen = (usual or names)[:1]
        return chosen[0].name if chosen else ""

    def _images_in(self, folder: str) -> Iterator[str | Defect]:
        """Images under a folder, or those that a list names, relative to the root."""
        place = self.path(folder)
        if place.is_file():
            try:
                lines = place.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                yield Defect(folder, f"is no list of images: {error}")
                return
            base = posixpath.dirname(folder)
            yield from (posixpath.normpath(posixpath.join(base, one)) for one in lines if one)
            return
        for name in walk(place):
            if isinstance(name, Defect):
                yield name
            elif name.lower().endswith(SUFFIXES):
                yield posixpath.normpath(f"{folder}/{name}")

    def _image_of(
        self,
        image: str,
        split: str,
        data: DataFile,
        kept: dict[str, dict[str, Any]],
        file_cache: FileCache,
        counts: Counts,
    ) -> Iterator[DrawnImage | Defect]:
        name = _label_file(image)
        path = self.path(name)
        if not path.exists():
            counts.add("", "images without a label file", image, left_out=True)
            return
        read = file_cache.remember(name, [path], partial(read_lines, path, name))
        for one in read["defects"]:
            yield Defect(**{**one, "key": f"{image}#{one['place']}"})
        own = kept.get(name)
        if own and own.get("digest") == read["digest"]:
            objects = [_kept_object(case, read["lines"]) for case in own["cases"]]
            yield DrawnImage(image, name, objects, split=split)
            return
        if own:
            counts.add(name, "changed since it was written: its lines are read as they are", "")
        objects = []
        for number, kind, corners, is_box in read["lines"]:
            place = f"line {number}"
            if kind in data.names:
                shape = [FRACTIONS, [corners]]
                objects.append(DrawnObject(place, data.names[kind], shape, str(number), is_box))
            else:
                known = ", ".join(f"{key}: {text}" for key, text in list(data.names.items())[:6])
                cause = f"class {kind} is none of 'names' ({known})"
                yield Defect(name, cause, place, f"{image}#{number}")
        if objects or not (read["defects"] or read["lines"]):
            yield DrawnImage(image, name, objects, split=split)

    def draw(self, shape: Any, height: int, width: int, file: str, place: str) -> np.ndarray:
        """Draw the union of polygons in fractions of the image."""
        del file, place
        mask = np.zeros((height, width), bool)
        for corners in shape[1]:
            scaled = [value * (height if at % 2 else width) for at, value in enumerate(corners)]
            mask |= draw_shape(polygon([scaled]), height, width)
        return mask

    def must_show(self, shape: Any) -> bool:
        """Return whether there is a polygon; the writer keeps masks without one."""
        return bool(shape[1])


def _label_file(image: str) -> str:
    """Path of the label file: the last folder called images becomes labels."""
    folders = image.split("/")[:-1]
    stem = posixpath.splitext(posixpath.basename(image))[0]
    for at in range(len(folders) - 1, -1, -1):
        if folders[at] == "images":
            folders[at] = "labels"
            break
    return "/".join([*folders, f"{stem}.txt"])


def _kept_object(case: dict[str, Any], lines: list[Any]) -> DrawnObject:
    wanted = set(case["lines"])
    corners = [corners for number, _, corners, _ in lines if number in wanted]
    place = f"lines {min(wanted)} to {max(wanted)}" if wanted else ""
    return DrawnObject(place, str(case.get("target")), [FRACTIONS, corners], extra=case)
