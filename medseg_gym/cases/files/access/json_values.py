"""Values of foreign JSON: what they are, in words, and file names that stay inside of the data."""

from __future__ import annotations

import posixpath
from typing import Any

from medseg_gym.cases.files.defects import Damaged


def kind_of(value: Any) -> str:
    """Name the type of a JSON value: "an array", "the number 7"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    for kind, words in ((str, "a text"), (list, "an array"), (dict, "an object")):
        if isinstance(value, kind):
            return words
    return "something else"


def require_kind(value: Any, kind: type, what: str, name: str, place: str = "") -> Any:
    """Return a value that is a dict or a list.

    Args:
        value: Of a JSON file.
        kind: dict or list.
        what: Name of it, for the error; "" is the place itself.
        name: Path of the file relative to the root.
        place: Where inside of it.

    Raises:
        Damaged: It is something else.
    """
    if isinstance(value, kind):
        return value
    wanted = "an object" if kind is dict else "an array"
    raise Damaged(name, f"{what} is {kind_of(value)}, expected {wanted}".lstrip(), place)


def inner_path(value: Any, field: str, name: str, place: str) -> str:
    """Return a file name of a JSON file, normalised, with "/" between its parts.

    Args:
        value: Of the JSON file.
        field: Its key, for the error.
        name: Path of the JSON file relative to the root.
        place: Where inside of it.

    Raises:
        Damaged: It is no file name, or leads out of the data set.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        what = "empty" if value == "" else "no name" if isinstance(value, str) else kind_of(value)
        raise Damaged(name, f"{field!r} is {what}, expected a file name", place)
    plain = posixpath.normpath(value.replace("\\", "/"))
    if posixpath.isabs(plain) or plain.startswith("..") or plain == "." or ":" in plain[1:2]:
        raise Damaged(name, f"{field} {value!r} points outside of the data set", place)
    return plain
