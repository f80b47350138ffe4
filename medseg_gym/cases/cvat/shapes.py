"""Read the shapes of an image of CVAT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element  # a type alone; the parser is defusedxml

import numpy as np

from medseg_gym.cases.drawn import DrawnObject, ring
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.drawn.shapes import box, ellipse, number, polygon, turned, whole
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged

RUNS = "runs in a box"
"""First item of a shape of a mask; then left, top, width, height and run lengths, row by row."""

_SHAPES = ("polygon", "mask", "ellipse", "box")
_WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid")


def read_shape(
    element: Element, at: int, image: str, file: str, counts: Counts
) -> DrawnObject | None:
    """Read one element of an image.

    Args:
        element: Of the XML.
        at: Its number among those of the image.
        image: Name of the image, for the error.
        file: Path of the XML relative to the root.
        counts: Takes the notes.

    Returns:
        The object; None for tags, and for lines and points, which are counted.

    Raises:
        Damaged: It cannot be used.
    """
    place = f"image {image!r}, {element.tag} {at + 1}"
    if element.tag in _WITHOUT_AREA:
        reason = "lines, points, skeletons and cuboids, which have no area"
        counts.add("", reason, f"{file}, {place}", left_out=True)
    if element.tag not in _SHAPES:
        return None
    label = element.get("label", "").strip()
    if not label:
        raise Damaged(file, "'label' is missing", place)
    shape = _shape(element, file, place)
    group = element.get("group_id")
    own = f"group {group}" if group not in (None, "0") else str(at)
    return DrawnObject(place, label, shape, own, element.tag == "box", _kept(element, file, place))


def _shape(element: Element, file: str, place: str) -> list[Any]:
    attributes = _Attributes(element.attrib, file, place)
    turn = attributes.number("rotation") if "rotation" in element.attrib else 0.0
    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in attributes.text("points").split(";") if pair.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise Damaged(file, "'points' are no X,Y;X,Y;...", place)
        return polygon([ring([attributes.parsed(v) for p in pairs for v in p], file, place)])
    if element.tag == "ellipse":
        x, y, across, down = (attributes.number(name) for name in ("cx", "cy", "rx", "ry"))
        if min(across, down) <= 0:
            raise Damaged(file, f"an ellipse has the radii {across:g} and {down:g}", place)
        return ellipse(x, y, across, down, turn)
    if element.tag == "box":
        whole_box = box(*(attributes.number(name) for name in ("xtl", "ytl", "xbr", "ybr")))
        return polygon([turned(whole_box[1][0], turn)]) if turn else whole_box
    left, top = (round(attributes.number(name)) for name in ("left", "top"))
    width, height = (
        whole(attributes.number(name), name, file, place) for name in ("width", "height")
    )
    words = [word for word in attributes.text("rle").split(",") if word.strip()]
    try:
        runs = [int(word) for word in words]
    except ValueError:
        raise Damaged(file, "'rle' has something that is no whole number", place) from None
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        cause = f"its run lengths are of {sum(runs)} pixels; {width} x {height} are"
        raise Damaged(file, f"{cause} {width * height}", place)
    return [RUNS, left, top, width, height, runs]


class _Attributes:
    """Attributes of an element, or the error that names them."""

    def __init__(self, values: Mapping[str, str], file: str, place: str) -> None:
        self.values, self.file, self.place = values, file, place

    def text(self, name: str) -> str:
        """Return an attribute that must be there."""
        if name not in self.values:
            raise Damaged(self.file, f"{name!r} is missing", self.place)
        return self.values[name]

    def number(self, name: str) -> float:
        """Return an attribute that must be a finite number."""
        return number(self.parsed(self.text(name)), name, self.file, self.place)

    def parsed(self, text: str) -> Any:
        """Return a number, or the text where it is none."""
        try:
            return float(text)
        except ValueError:
            return text


def _kept(element: Element, file: str, place: str) -> dict[str, Any]:
    for attribute in element.iter("attribute"):
        if attribute.get("name") == EXTRA:
            try:
                kept = json.loads(attribute.text or "")
            except (ValueError, RecursionError):
                kept = None
            if not isinstance(kept, dict):
                raise Damaged(file, f"the attribute {EXTRA!r} is no JSON object", place)
            return kept
    return {}


def leaves(shape: list[Any], height: int, width: int) -> bool:
    """Return whether the box of a mask leaves the image."""
    _, left, top, columns, rows, _ = shape
    return bool(left < 0 or top < 0 or left + columns > width or top + rows > height)


def draw_runs(shape: list[Any], height: int, width: int, file: str, place: str) -> np.ndarray:
    """Return the pixels of a mask in its box.

    Args:
        shape: Of a mask, see `RUNS`.
        height: Rows of the image.
        width: Columns.
        file: For the error.
        place: For the error.

    Raises:
        Damaged: It leaves the image.
    """
    if leaves(shape, height, width):
        _, left, top, columns, rows, _ = shape
        cause = f"its mask of {columns} x {rows} pixels at ({left}, {top}) leaves the image"
        raise Damaged(file, f"{cause} of {width} x {height}", place)
    _, left, top, columns, rows, runs = shape
    mask = np.zeros((height, width), bool)
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rows, columns)
    mask[top : top + rows, left : left + columns] = part
    return mask
