"""The catalog of cases that can be played on the page."""

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
"""Longer edge of a thumbnail, in pixels."""


@dataclass(frozen=True, eq=False)
class Place:
    """One split of one case source, as the page lists it.

    Args:
        name: Name in requests.
        spec: Spec for `load_cases`; None for cases that the starting program made in memory.
        source: The cases.
        own: True for images that the owner uploaded.
    """

    name: str
    spec: str | None
    source: CaseSource
    own: bool = False

    @property
    def split(self) -> str:
        """Split in recordings; "train" for cases in memory, which have none."""
        return self.source.split or "train"

    @property
    def title(self) -> str:
        """Title for people."""
        if self.own:
            return "your own images"
        split = f" · {self.source.split}" if self.source.split else ""
        return f"{self.source.name}{split}"

    def index_of(self, key: str) -> int:
        """Return the position of a case.

        Raises:
            ServiceError: 404.
        """
        try:
            return self.source.index_of(key)
        except CaseError as error:
            raise ServiceError(str(error), 404) from None

    def case(self, index: int) -> Case:
        """Return the case at a position.

        Raises:
            ServiceError: 404.
        """
        if not 0 <= index < len(self.source):
            raise ServiceError(f"{self.title} has {len(self.source)} cases, no number {index}", 404)
        with _READING:
            return self.source[index]


_READING = threading.Lock()  # sources promise nothing about threads


class CaseCatalog:
    """Places by name.

    Args:
        cases: See `PageOptions`.

    Raises:
        CaseError: A spec that cannot be used.
    """

    def __init__(self, cases: Sequence[str | CaseSource | Sequence[Case]]) -> None:
        self.places: dict[str, Place] = {}
        for entry in cases:
            if isinstance(entry, str):
                for source in load_splits(entry).values():
                    self._put(entry, source)
            else:
                self._put(None, load_cases(entry))

    def _put(self, spec: str | None, source: CaseSource) -> None:
        name = f"c{len(self.places)}"
        self.places[name] = Place(name, spec, source)


def list_cases(place: Place, start: int, count: int, find: str = "") -> dict[str, Any]:
    """List some cases of a place, as JSON.

    Args:
        place: The place.
        start: Number of matching cases to skip.
        count: Limit of the cases listed.
        find: Substring of the key; "" matches all.

    Returns:
        `total` of the matching cases (None if there are too many to count), and `cases`.
    """
    source, wanted = place.source, find.casefold().strip()
    total: int | None = len(source)
    if wanted:
        matches = (i for i, key in enumerate(source.keys) if wanted in key.casefold())
        positions = list(islice(matches, start + count + 1))
        total = len(positions) if len(positions) <= start + count else None
        indices: Sequence[int] = positions[start : start + count]
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
    """Describe a case as people may know it before they play."""
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
    """Return a small JPEG of a case's image."""
    case = place.case(index)
    image = Image.fromarray(case.image)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
