"""Turn the values of a mask file into targets: binary, index, instance and colour masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.files.access.guards import read_json
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.errors import CaseError

MAX_VALUES = 10_000
"""Distinct values of one mask file; more is no mask."""

_JPEG_WHITE = 192
"""White of a JPEG mask is at least this bright, however its compression blurred it."""

IGNORED = "-"
"""Name of a value that belongs to no target."""


def names_of_values(spec: FileSpec, kind: str) -> dict[int, str]:
    """Read the option `labels`: `1:liver,2:spleen`, or a JSON file beside the data.

    Args:
        spec: The options; a relative file name starts at the data's folder.
        kind: "color" reads the values as RRGGBB, "index" as integers.

    Returns:
        Name by value; a colour's value is 65536 R + 256 G + B.

    Raises:
        CaseError: The option is missing or cannot be used.
    """
    given = spec.options.get("labels", "")
    example = "labels=ff0000:polyp,00ff00:tool" if kind == "color" else "labels=1:liver,2:spleen"
    if not given:
        raise CaseError(f"{spec}: kind={kind} needs names for the values: {example}")
    if given.lower().endswith(".json"):
        pairs = _from_file(spec, Path(given).expanduser())
    else:
        items = (item.partition(":") for item in given.split(","))
        pairs = [(value, name) for value, _, name in items]
    names: dict[int, str] = {}
    for value, name in pairs:
        number = _value(value, kind)
        if number is None or not name.strip() or number in names:
            problem = "named twice" if number in names else f"not VALUE:NAME as in {example}"
            raise spec.wrong("labels", f"{value}:{name} is {problem}")
        names[number] = name.strip()
    return names


def _from_file(spec: FileSpec, file: Path) -> list[tuple[str, str]]:
    path = file if file.is_absolute() else spec.path / file
    try:
        content = read_json(path, str(file))
    except Damaged as error:
        raise spec.wrong("labels", str(error)) from error
    names = content.values() if isinstance(content, Mapping) else [None]
    if not all(isinstance(name, str) for name in names):
        shown = json.dumps(content)[:60]
        raise spec.wrong("labels", f'the file must map values to names, {{"1": "liver"}}: {shown}')
    return [(value, name) for value, name in content.items()]


def _value(text: str, kind: str) -> int | None:
    text = text.strip().lower().removeprefix("#")
    try:
        if kind == "color":
            return int(text, 16) if len(text) == 6 else None
        return int(text)
    except ValueError:
        return None


def numbers(labels: np.ndarray, kind: str, name: str) -> np.ndarray:
    """Bring the pixels of a mask file to one number each.

    Args:
        labels: (H, W) or (H, W, 3), from `read_labels`.
        kind: One of `FolderOptions.kind` but "binary".
        name: Of the file, for the error.

    Returns:
        (H, W) integers.

    Raises:
        Damaged: Colours where values were expected (grey is taken as a colour), or colours that
            are not those of 8 bits.
    """
    if kind == "color":
        if labels.ndim == 2:
            labels = np.repeat(labels[:, :, None], 3, axis=2)
        packed: np.ndarray = _bytes_of(labels, name).astype(np.int64) @ np.array([65536, 256, 1])
        return packed
    if labels.ndim == 3:
        if not (labels == labels[:, :, :1]).all():
            raise Damaged(name, f"is a colour image, not an {kind} mask; see kind=color")
        labels = labels[:, :, 0]
    return labels


def _bytes_of(labels: np.ndarray, name: str) -> np.ndarray:
    """Return colours of 16 bits as the 8-bit ones that they were made of, stretched or not."""
    if labels.max() <= 255 and labels.min() >= 0:
        return labels
    if labels.dtype == np.uint16 and not (labels % 257).any():
        return labels // 257
    raise Damaged(
        name, "has colours of more than 8 bits a channel, where labels= names RRGGBB; write 8 bits"
    )


def values_of(labels: np.ndarray, kind: str, name: str) -> list[tuple[int, int]]:
    """Count the pixels of every value but 0.

    Args:
        labels: (H, W) or (H, W, 3), from `read_labels`.
        kind: One of `FolderOptions.kind` but "binary".
        name: Of the file, for the error.

    Returns:
        (value, pixels), by rising value.

    Raises:
        Damaged: See `numbers`; or there are too many values for a mask.
    """
    values, counts = np.unique(numbers(labels, kind, name), return_counts=True)
    if len(values) > MAX_VALUES:
        raise Damaged(name, f"has {len(values)} different values; that is an image, not a mask")
    return [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if v]


def binary(labels: np.ndarray, name: str, threshold: float | None) -> np.ndarray:
    """Return the foreground of a binary mask file.

    Args:
        labels: (H, W) or (H, W, 3), from `read_labels`.
        name: Of the file; JPEGs have blurred values, so their threshold is 127.
        threshold: Foreground is above it; None takes two-valued masks alone (JPEGs excepted).

    Returns:
        (H, W) bool.

    Raises:
        Damaged: Colours; more than two values without a threshold; a threshold that no foreground
            reaches; or a JPEG that is no white on black.
    """
    values = numbers(labels, "binary", name)
    top = int(values.max())
    two = bool(((values == 0) | (values == top)).all())
    if threshold is not None:
        if two and 0 < top <= threshold:
            cause = f"has the values 0 and {top}, none above threshold={threshold:g}"
            raise Damaged(name, f"{cause}; leave that option out, or lower it")
        return values > threshold
    if name.lower().endswith((".jpg", ".jpeg")):
        if 0 < top < _JPEG_WHITE:
            cause = f"is a JPEG mask whose highest value is {top}, where white is 255"
            raise Damaged(name, f"{cause}; say what is foreground with threshold={top // 2}")
        return values > 127
    if two:
        return values > 0
    raise Damaged(
        name,
        f"has {len(np.unique(values))} values where a binary mask has two; give kind=index, "
        "kind=instance or kind=color, or threshold=127",
    )


def describe_value(value: Any, kind: str) -> str:
    """Return a value as a user writes it: "7", or "ff0000" for a colour."""
    return f"{value:06x}" if kind == "color" else str(value)
