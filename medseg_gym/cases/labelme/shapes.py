"""Read the shapes of a LabelMe file."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from medseg_gym.cases.drawn import DrawnObject, ring
from medseg_gym.cases.drawn.shapes import box, corners, ellipse, polygon
from medseg_gym.cases.files.access.json_values import kind_of, require_kind
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.masks import as_mask, read_labels

PNG = "png"
"""First item of a shape of a mask; then left, top, and a PNG in base64."""

_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_KINDS = ("polygon", "rectangle", "circle", "mask", *_WITHOUT_AREA)


def read_shape(entry: Any, at: int, file: str, counts: Counts) -> DrawnObject | None:
    """Read one shape.

    Args:
        entry: Of the JSON.
        at: Its number.
        file: Path of the JSON relative to the root.
        counts: Takes the notes.

    Returns:
        The object; None for lines and points, which are counted.

    Raises:
        Damaged: It cannot be used.
    """
    place = f"shapes[{at}]"
    require_kind(entry, dict, "", file, place)
    label = entry.get("label")
    if not isinstance(label, str) or not label.strip():
        raise Damaged(file, f"'label' is {kind_of(label)}, expected words", place)
    kind = entry.get("shape_type", "polygon")
    if kind not in _KINDS:
        raise Damaged(file, f"shape_type {kind!r} is none of {', '.join(_KINDS)}", place)
    if kind in _WITHOUT_AREA:
        reason = "lines and points, which have no area"
        counts.add("", reason, f"{file}, {place}", left_out=True)
        return None
    flat = corners(entry.get("points"), file, place)
    group = entry.get("group_id")
    number = f"group {group}" if group is not None else str(at)
    shape = _shape(kind, flat, entry, file, place)
    return DrawnObject(place, label.strip(), shape, number, kind == "rectangle")


def _shape(kind: str, flat: list[float], entry: dict[str, Any], file: str, place: str) -> list[Any]:
    if kind == "polygon":
        return polygon([ring(flat, file, place)])
    if len(flat) != 4:
        raise Damaged(file, f"a {kind} has {len(flat) // 2} points, expected two", place)
    first, second = (flat[0], flat[1]), (flat[2], flat[3])
    if kind == "circle":
        radius = math.dist(first, second)
        if not radius:
            raise Damaged(file, "a circle has no radius", place)
        return ellipse(*first, radius, radius)
    left, right = sorted((first[0], second[0]))
    top, bottom = sorted((first[1], second[1]))
    if kind == "rectangle":
        return box(left, top, right, bottom)
    text = entry.get("mask")
    if not isinstance(text, str):
        raise Damaged(file, f"'mask' is {kind_of(text)}, expected a PNG in base64", place)
    return [PNG, round(left), round(top), text]


def draw_png(shape: list[Any], height: int, width: int, file: str, place: str) -> np.ndarray:
    """Return the pixels of a mask in its box.

    Args:
        shape: Of a mask, see `PNG`.
        height: Rows of the image.
        width: Columns.
        file: For the error.
        place: For the error.

    Raises:
        Damaged: It is no PNG, or leaves the image.
    """
    _, left, top, text = shape
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Damaged(file, f"'mask' is no base64: {error}", place) from error
    part = as_mask(read_labels(content, file, place), file, place)
    rows, columns = part.shape
    if left < 0 or top < 0 or top + rows > height or left + columns > width:
        cause = f"its mask of {columns} x {rows} pixels at ({left}, {top}) leaves the image"
        raise Damaged(file, f"{cause} of {width} x {height}", place)
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = part
    return mask
