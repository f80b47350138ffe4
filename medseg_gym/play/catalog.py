"""The catalog of cases and volumes that can be played on the page."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from PIL import Image

from medseg_gym.cases import Case, CaseSource, VolumeCase, load_cases
from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.phantoms.volumes import PhantomVolumes
from medseg_gym.cases.source import open_splits
from medseg_gym.cases.volume_source import VolumeList, VolumeSource, load_volumes
from medseg_gym.errors import CaseError
from medseg_gym.play.options import PageOptions
from medseg_gym.serving.errors import ServiceError

THUMBNAIL = 112
"""Longer edge of a thumbnail, in pixels."""


@dataclass(frozen=True, eq=False)
class Place:
    """One split of one source of cases or of volumes, as the page lists it.

    Args:
        name: Name in requests.
        spec: Spec for `load_cases` or `load_volumes`; None for what the starting program made in
            memory.
        source: The cases or volumes.
        own: True for images and scans that the owner brought.
    """

    name: str
    spec: str | None
    source: CaseSource | VolumeSource
    own: bool = False

    @property
    def volumes(self) -> bool:
        """True if it holds volumes."""
        return isinstance(self.source, VolumeSource)

    @property
    def split(self) -> str:
        """Split in recordings; "train" for what is in memory, which has none."""
        return self.source.split or "train"

    @property
    def title(self) -> str:
        """Title for people."""
        if self.own:
            return "your own scans" if self.volumes else "your own images"
        split = f" · {self.source.split}" if self.source.split else ""
        return f"{self.source.name}{split}"

    @property
    def light(self) -> bool:
        """True where reading one takes no time, so that lists can describe and show each."""
        return self.own or not self.volumes or isinstance(self.source, (VolumeList, PhantomVolumes))

    def index_of(self, key: str) -> int:
        """Return the position of a case.

        Raises:
            ServiceError: 404.
        """
        try:
            return self.source.index_of(key)
        except CaseError as error:
            raise ServiceError(str(error), 404) from None

    def case(self, index: int) -> Case | VolumeCase:
        """Return the case at a position.

        Raises:
            ServiceError: 404.
        """
        if not 0 <= index < len(self.source):
            count = f"{len(self.source)} {self.source.noun}s"
            raise ServiceError(f"{self.title} has {count}, no number {index}", 404)
        with _READING:
            return self.source[index]


_READING = threading.Lock()  # sources promise nothing about threads


def open_places(options: PageOptions) -> dict[str, Place]:
    """Open every split of every source of a page; by name.

    Raises:
        CaseError: A spec that cannot be used.
    """
    places: dict[str, Place] = {}
    for number, (spec, cases) in enumerate(_image_sources(options)):
        places[f"c{number}"] = Place(f"c{number}", spec, cases)
    for number, (spec, volumes) in enumerate(_volume_sources(options)):
        places[f"v{number}"] = Place(f"v{number}", spec, volumes)
    return places


def _image_sources(options: PageOptions) -> Iterator[tuple[str | None, CaseSource]]:
    for entry in options.image_cases:
        if isinstance(entry, str):
            for source in load_splits(entry).values():
                yield entry, source
        else:
            yield None, load_cases(entry)


def _volume_sources(options: PageOptions) -> Iterator[tuple[str | None, VolumeSource]]:
    for entry in options.volume_specs:
        if not isinstance(entry, str):
            yield None, load_volumes(entry)
            continue
        first: list[list[str]] = []
        for source in open_splits(entry, load_volumes).values():
            keys = list(source.keys[:1])
            if keys not in first:  # every split of a single file holds the same volume
                first.append(keys)
                yield entry, source


def list_cases(place: Place, start: int, count: int, find: str = "") -> dict[str, Any]:
    """List some cases of a place, as JSON; of volumes that take long to read, the key alone.

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
    entry = {"index": index, "key": place.source.keys[index]}
    if not place.light:
        return entry
    try:
        return entry | describe_case(place.case(index))
    except CaseError as error:  # one bad file does not hide the others
        return entry | {"error": str(error)}


def describe_case(case: Case | VolumeCase) -> dict[str, Any]:
    """Describe a case or a volume as people may know it before they play."""
    description: dict[str, Any] = {
        "key": case.key,
        "target": case.target,
        "modality": case.modality,
        "synthetic": case.synthetic,
        "truth_known": case.truth_known,
        "width": case.width,
        "height": case.height,
        "spacing": case.spacing,
    }
    if isinstance(case, VolumeCase):
        description |= {"depth": case.depth, "axis": axis_of(case)}
    return description


def axis_of(case: VolumeCase) -> str:
    """Return the way a volume is cut: "axial", "coronal" or "sagittal"."""
    return case.geometry.view.axis if case.geometry else "axial"


def thumbnail(place: Place, index: int) -> bytes:
    """Return a small JPEG of a case's image, or of a volume's slice in the middle.

    Raises:
        ServiceError: 404; or volumes that take long to read.
    """
    if not place.light:
        raise ServiceError("this source shows no thumbnails", 404)
    # Places of own images are other objects every time: they are not for the cache.
    return _draw(place, index) if place.own else _drawn(place, index)


def _draw(place: Place, index: int) -> bytes:
    case = place.case(index)
    pixels = case.rgb(case.depth // 2) if isinstance(case, VolumeCase) else case.image
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


_drawn = lru_cache(maxsize=512)(_draw)
