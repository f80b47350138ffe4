"""Objects on an image as they stand in a file, before they become cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DrawnObject:
    """One object that somebody drew.

    Args:
        place: Where it stands in its file: "annotations[17]".
        label: What it is called there.
        shape: In a form that JSON holds and that the format's `draw` understands.
        number: What tells it from others of its label on its image, as its id.
        box: It is a box and no outline; `boxes=1` fills it, else it is left out.
        extra: What a writer of this suite kept (`kept_fields`); such an object is a case of its
            own. Empty in files of other tools.
    """

    place: str
    label: str
    shape: Any
    number: str = ""
    box: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawnImage:
    """An image and all that was drawn on it.

    Args:
        image: Path of the image, relative to the root.
        file: Path of the file with the objects.
        objects: The objects.
        size: (H, W) that the file gives the image; None where it gives none.
        split: Split that the data say, or "".
        group: Patient that the data say, or "".
    """

    image: str
    file: str
    objects: list[DrawnObject]
    size: tuple[int, int] | None = None
    split: str = ""
    group: str = ""
