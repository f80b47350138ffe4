"""Fields of a `Case` that a format has no place for, kept under "medseg_gym" by the writers."""

from __future__ import annotations

from typing import Any

EXTRA = "medseg_gym"
"""Key under which they lie, wherever a format lets other keys be."""


def kept_fields(extra: dict[str, Any]) -> dict[str, Any]:
    """Return what a writer kept as fields of a `Record`.

    Args:
        extra: From the file.

    Raises:
        TypeError: A value of the wrong type.
        ValueError: Likewise, or a spacing that is no two numbers.
    """
    spacing = extra.get("spacing")
    if spacing is not None:
        row, column = (float(side) for side in spacing)
        spacing = (row, column)
    for field in ("modality", "group", "source"):
        if not isinstance(extra.get(field, ""), str):
            raise ValueError(f"{field!r} is {extra[field]!r}, expected a text")
    return {
        "modality": extra.get("modality", ""),
        "group": extra.get("group", ""),
        "source": extra.get("source", ""),
        "spacing": spacing,
        "synthetic": extra.get("synthetic") is True,
    }
