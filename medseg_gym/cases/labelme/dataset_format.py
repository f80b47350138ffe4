"""Read folders of LabelMe."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from medseg_gym.cases.drawn import DrawnImage, DrawnObject
from medseg_gym.cases.drawn.annotation_files import AnnotationFilesFormat
from medseg_gym.cases.drawn.image_files import ImageFiles
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.drawn.shapes import UNION, whole
from medseg_gym.cases.files.access.guards import check_pixels, read_json
from medseg_gym.cases.files.access.json_values import inner_path, require_kind
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.splits import split_named_once
from medseg_gym.cases.labelme.shapes import PNG, draw_png, read_shape


class LabelMeFormat(AnnotationFilesFormat):
    """Folders of images with a JSON file of LabelMe each, or one such file.

    Labels are the targets; shapes of one `group_id` stay one object under `instances=apart`. A
    folder called after a split says it.
    """

    name = "labelme"
    ending = ".json"
    none_there = "holds no JSON file of LabelMe; give the folder that does"

    def of_file(
        self, name: str, images: ImageFiles, counts: Counts
    ) -> Iterator[DrawnImage | Defect]:
        """See `AnnotationFilesFormat.of_file`."""
        document = read_json(self.path(name), name)
        if not (isinstance(document, dict) and "shapes" in document):
            if self.only:
                raise Damaged(name, "is no LabelMe file: an object with 'shapes' is expected")
            counts.add("", "a JSON file that is no LabelMe file", name)
            return
        shapes = require_kind(document["shapes"], list, "'shapes'", name)
        size = None
        if document.get("imageHeight") is not None or document.get("imageWidth") is not None:
            height, width = (
                whole(document.get(key), key, name, "") for key in ("imageHeight", "imageWidth")
            )
            check_pixels(height, width, name)
            size = (height, width)
        split = split_named_once(name.split("/")[:-1])
        image = images.find(_image_name(document, name), name, "imagePath", split)
        objects: list[DrawnObject] = []
        for at, entry in enumerate(shapes):
            try:
                one = read_shape(entry, at, name, counts)
                objects += [] if one is None else [one]
            except Damaged as error:
                yield error.defect
        if EXTRA in document:
            objects = _with_kept(objects, document[EXTRA], name, counts)
        if objects or not shapes:
            yield DrawnImage(image, name, objects, size, split)

    def draw(self, shape: Any, height: int, width: int, file: str, place: str) -> np.ndarray:
        """Draw masks too."""
        if shape[0] == PNG:
            return draw_png(shape, height, width, file, place)
        return super().draw(shape, height, width, file, place)


def _image_name(document: dict[str, Any], name: str) -> str:
    """Name of the image: its path where that stays under the folder of the file, or its end."""
    value = document.get("imagePath")
    if isinstance(value, str):
        plain = posixpath.normpath(value.replace("\\", "/"))
        if plain.startswith(("..", "/")) or plain[1:2] == ":":
            value = posixpath.basename(plain)
    return inner_path(value, "imagePath", name, "")


def _with_kept(
    objects: list[DrawnObject], kept: Any, name: str, counts: Counts
) -> list[DrawnObject]:
    """Join the shapes of each case that the writer of this suite has written."""
    require_kind(kept, list, repr(EXTRA), name)
    of_group: dict[str, list[DrawnObject]] = defaultdict(list)
    for one in objects:
        of_group[one.number].append(one)
    joined: list[DrawnObject] = []
    for at, case in enumerate(kept):
        require_kind(case, dict, f"{EXTRA}[{at}]", name)
        number = f"group {case.get('group_id')}"
        own = of_group.get(number, [])
        if len(own) != case.get("shapes"):
            counts.add(
                name, "changed since it was written: its shapes are read as they are", number
            )
            continue
        of_group.pop(number, None)
        shape = [UNION, [one.shape for one in own]]
        place = own[0].place if own else f"{EXTRA}[{at}]"
        joined.append(DrawnObject(place, str(case.get("target")), shape, number, extra=case))
    return [*(one for group in of_group.values() for one in group), *joined]
