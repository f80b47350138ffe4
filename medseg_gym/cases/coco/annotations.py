"""Read a COCO file: from JSON of unknown shape to images with objects, and defects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from medseg_gym.cases.coco.run_lengths import counts_of, draw_runs
from medseg_gym.cases.drawn import DrawnObject, ring
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.drawn.shapes import box, polygon, whole
from medseg_gym.cases.drawn.shapes import number as number_in
from medseg_gym.cases.files.access.guards import check_pixels
from medseg_gym.cases.files.access.json_values import inner_path, kind_of, require_kind
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect

RUNS = "runs"
"""First item of a shape of run lengths; then (H, W) and `counts` as in the file."""

_GROUPS = ("patient", "patient_id", "subject", "subject_id", "case_id")


class CocoImage:
    """An image of a COCO file.

    Args:
        place: "images[3]".
        name: Its file name.
        size: (H, W), or None where the file gives none.
        group: Patient, where a field of the image says so.
    """

    def __init__(self, place: str, name: str, size: tuple[int, int] | None, group: str) -> None:
        self.place, self.name, self.size, self.group = place, name, size, group
        self.objects: list[DrawnObject] = []


def read_coco(
    document: dict[str, Any], name: str, counts: Counts, crowd: bool
) -> Iterator[CocoImage | Defect]:
    """Read a parsed COCO file.

    Args:
        document: What the file holds.
        name: Its path relative to the root.
        counts: Takes the notes.
        crowd: Whether crowds make cases.

    Yields:
        Every Defect, and then the images in the order of the file.

    Raises:
        Damaged: The document as a whole cannot be used.
    """
    for key in ("images", "annotations", "categories"):
        if key not in document:
            keys = ", ".join(list(map(repr, document))[:6])
            raise Damaged(name, f"{key!r} is missing; the JSON has {keys}")
        require_kind(document[key], list, repr(key), name)
    categories: dict[Any, str] = {}
    images: dict[Any, CocoImage] = {}
    for number, entry in enumerate(document["categories"]):
        try:
            _add(categories, *_category(entry, name, f"categories[{number}]"), name, number)
        except Damaged as error:
            yield error.defect
    for number, entry in enumerate(document["images"]):
        try:
            _add(images, *_image(entry, name, f"images[{number}]"), name, number)
        except Damaged as error:
            yield error.defect
    seen: set[Any] = set()
    for number, entry in enumerate(document["annotations"]):
        place = f"annotations[{number}]"
        try:
            image, one = _annotation(entry, name, place, images, categories)
            if entry.get("iscrowd") == 1 and not crowd:
                reason = "crowds, iscrowd 1 (crowd=1 takes them)"
                counts.add("", reason, f"{name}, {place}", left_out=True)
            elif one.number in seen:
                raise Damaged(name, f"a second annotation has the id {one.number}", place)
            else:
                seen.add(one.number)
                image.objects.append(one)
        except Damaged as error:
            yield error.defect
    yield from images.values()


def _add(known: dict[Any, Any], identity: Any, value: Any, name: str, number: int) -> None:
    if identity in known:
        what = "images" if isinstance(value, CocoImage) else "categories"
        cause = f"a second entry of {what} has the id {identity!r}; ids are unique"
        raise Damaged(name, cause, f"{what}[{number}]")
    known[identity] = value


def _identity(entry: dict[str, Any], key: str, name: str, place: str) -> int | str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        what = "missing" if key not in entry else kind_of(value)
        raise Damaged(name, f"{key!r} is {what}, expected a whole number", place)
    return value


def _category(entry: Any, name: str, place: str) -> tuple[int | str, str]:
    require_kind(entry, dict, "", name, place)
    words = entry.get("name")
    if not isinstance(words, str) or not words.strip():
        raise Damaged(name, f"'name' is {kind_of(words)}, expected words", place)
    return _identity(entry, "id", name, place), words.strip()


def _image(entry: Any, name: str, place: str) -> tuple[int | str, CocoImage]:
    require_kind(entry, dict, "", name, place)
    identity = _identity(entry, "id", name, place)
    size = None
    if entry.get("height") is not None or entry.get("width") is not None:
        height, width = (whole(entry.get(key), key, name, place) for key in ("height", "width"))
        check_pixels(height, width, name, place)
        size = (height, width)
    file = inner_path(entry.get("file_name"), "file_name", name, place)
    group = next((entry[key] for key in _GROUPS if isinstance(entry.get(key), (str, int))), "")
    return identity, CocoImage(place, file, size, str(group))


def _annotation(
    entry: Any,
    name: str,
    place: str,
    images: dict[Any, CocoImage],
    categories: dict[Any, str],
) -> tuple[CocoImage, DrawnObject]:
    require_kind(entry, dict, "", name, place)
    image = images.get(_identity(entry, "image_id", name, place))
    if image is None:
        cause = f"image_id {entry['image_id']!r} is none of the {len(images)} images"
        raise Damaged(name, cause, place)
    label = categories.get(_identity(entry, "category_id", name, place))
    if label is None:
        known = ", ".join(f"{key}: {words}" for key, words in list(categories.items())[:6])
        cause = f"category_id {entry['category_id']!r} is no category; there are {known or 'none'}"
        raise Damaged(name, cause, place)
    number = str(_identity(entry, "id", name, place))
    extra = require_kind(entry.get(EXTRA, {}), dict, repr(EXTRA), name, place)
    outline = entry.get("segmentation")
    if outline is None or outline == []:
        shape, is_box = _box(entry.get("bbox"), name, place), True
    else:
        shape, is_box = _shape(outline, image.size, name, place), False
    return image, DrawnObject(place, label, shape, number, is_box, extra)


def _box(value: Any, name: str, place: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != 4:
        what = "neither 'segmentation' nor a 'bbox' of [left, top, width, height]"
        raise Damaged(name, f"has {what}", place)
    left, top, width, height = (number_in(side, "'bbox'", name, place) for side in value)
    return box(left, top, left + width, top + height)


def _shape(value: Any, size: tuple[int, int] | None, name: str, place: str) -> list[Any]:
    if isinstance(value, list):
        return polygon([ring(one, name, place) for one in value])
    require_kind(value, dict, "'segmentation'", name, place)
    given = require_kind(value.get("size"), list, "'size' of the run lengths", name, place)
    if len(given) != 2:
        raise Damaged(name, "'size' of the run lengths is no [height, width]", place)
    height, width = (whole(side, "'size'", name, place) for side in given)
    check_pixels(height, width, name, place)
    if size is not None and size != (height, width):
        raise Damaged(
            name,
            f"its run lengths are of {width} x {height} pixels, its image of {size[1]} x "
            f"{size[0]} (width, height)",
            place,
        )
    counts = counts_of(value.get("counts"), name, place)
    if sum(counts) != height * width:
        draw_runs(counts, height, width, name, place)  # says so
    return [RUNS, [height, width], value["counts"]]
