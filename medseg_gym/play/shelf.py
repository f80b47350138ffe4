"""The shelf: every case that can be picked on the page."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from PIL import Image

from medseg_gym.cases import Case, CaseSource, load_cases
from medseg_gym.cases.source import load_splits
from medseg_gym.errors import CaseError
from medseg_gym.serving.errors import ServiceError

THUMBNAIL = 112
"""Longer edge of a small picture, in pixels."""


@dataclass(frozen=True, eq=False)
class Place:
    """A row of the shelf: one split of one case source.

    Args:
        name: In requests.
        spec: For `load_cases`; None for cases that the starting program made in memory.
        source: Its cases.
        own: Images that somebody dropped onto the page.
    """

    name: str
    spec: str | None
    source: CaseSource
    own: bool = False

    @property
    def split(self) -> str:
        """As recordings name it; cases in memory have none of their own."""
        return self.source.split or "train"

    @property
    def title(self) -> str:
        """For people."""
        if self.own:
            return "your own images"
        split = f" · {self.source.split}" if self.source.split else ""
        return f"{self.source.name}{split}"

    def index_of(self, key: str) -> int:
        """Position of a case.

        Raises:
            ServiceError: 404.
        """
        try:
            return self.source.index_of(key)
        except CaseError as error:
            raise ServiceError(str(error), 404) from None

    def case(self, index: int) -> Case:
        """The case at a position.

        Raises:
            ServiceError: 404.
        """
        if not 0 <= index < len(self.source):
            raise ServiceError(f"{self.title} has {len(self.source)} cases, no number {index}", 404)
        with _READING:
            return self.source[index]


_READING = threading.Lock()  # sources promise nothing about threads


class Shelf:
    """Places by name.

    Args:
        cases: See `PageOptions`.

    Raises:
        CaseError: A spec that cannot be used.
    """

    def __init__(self, cases: Sequence[str | CaseSource | Sequence[Case]]) -> None:
        self.places: dict[str, Place] = {}
        for given in cases:
            if isinstance(given, str):
                for source in load_splits(given).values():
                    self._put(given, source)
            else:
                self._put(None, load_cases(given))

    def _put(self, spec: str | None, source: CaseSource) -> None:
        name = f"c{len(self.places)}"
        self.places[name] = Place(name, spec, source)


def list_cases(place: Place, start: int, count: int, find: str = "") -> dict[str, Any]:
    """Some cases of a place, as JSON.

    Args:
        place: Where.
        start: The first of those that fit.
        count: At most so many.
        find: Part of the key; "" lets all fit.

    Returns:
        `total` of those that fit (None if there are too many to count), and `cases`.
    """
    source, wanted = place.source, find.casefold().strip()
    total: int | None = len(source)
    if wanted:
        fitting = (i for i, key in enumerate(source.keys) if wanted in key.casefold())
        found = list(islice(fitting, start + count + 1))
        total = len(found) if len(found) <= start + count else None
        indices: Sequence[int] = found[start : start + count]
    else:
        indices = range(start, min(start + count, len(source)))
    return {"total": total, "cases": [_entry(place, index) for index in indices]}


def _entry(place: Place, index: int) -> dict[str, Any]:
    try:
        case = place.case(index)
    except CaseError as error:  # one bad file does not hide the others
        return {"index": index, "key": place.source.keys[index], "error": str(error)}
    return {"index": index, **describe_case(case)}


def describe_case(case: Case) -> dict[str, Any]:
    """What people may know of a case before they play it."""
    return {
        "key": case.key,
        "target": case.target,
        "modality": case.modality,
        "synthetic": case.synthetic,
        "truth_known": case.truth_known,
        "width": case.width,
        "height": case.height,
        "spacing": case.spacing,
    }


@lru_cache(maxsize=512)
def thumbnail(place: Place, index: int) -> bytes:
    """A small JPEG of a case's image."""
    case = place.case(index)
    picture = Image.fromarray(case.image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
