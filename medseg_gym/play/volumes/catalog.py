"""The catalog of volumes that can be played on the page."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from PIL import Image

from medseg_gym.cases.phantoms.volumes import PhantomVolumes
from medseg_gym.cases.source import SPLITS, EmptySplit
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeList, VolumeSource, load_volumes
from medseg_gym.errors import CaseError
from medseg_gym.play.catalog import THUMBNAIL
from medseg_gym.serving.errors import ServiceError

_READING = threading.Lock()  # sources promise nothing about threads


@dataclass(frozen=True, eq=False)
class VolumePlace:
    """One split of one source of volumes, as the page lists it.

    Args:
        name: Name in requests.
        source: The volumes.
        own: True for scans that the owner opened.
    """

    name: str
    source: VolumeSource
    own: bool = False

    @property
    def title(self) -> str:
        """Title for people."""
        if self.own:
            return "your own scans"
        split = f" · {self.source.split}" if self.source.split else ""
        return f"{self.source.name}{split}"

    @property
    def light(self) -> bool:
        """True where reading a volume takes no time, so that lists can describe each."""
        return self.own or isinstance(self.source, (VolumeList, PhantomVolumes))

    def case(self, index: int) -> VolumeCase:
        """Return the volume at a position.

        Raises:
            ServiceError: 404.
        """
        if not 0 <= index < len(self.source):
            raise ServiceError(
                f"{self.title} has {len(self.source)} volumes, no number {index}", 404
            )
        with _READING:
            return self.source[index]


def volume_places(
    specs: Sequence[str | VolumeSource | Sequence[VolumeCase]],
) -> dict[str, VolumePlace]:
    """Open every split of every source.

    Args:
        specs: See `PageOptions.volumes`.

    Raises:
        CaseError: A spec that cannot be used.
    """
    places: dict[str, VolumePlace] = {}
    for spec in specs:
        for source in _splits(spec) if isinstance(spec, str) else [load_volumes(spec)]:
            name = f"v{len(places)}"
            places[name] = VolumePlace(name, source)
    return places


def _splits(spec: str) -> list[VolumeSource]:
    sources: list[VolumeSource] = []
    problem: EmptySplit | None = None
    for split in SPLITS:
        try:
            source = load_volumes(spec, split)
        except EmptySplit as error:
            problem = error
            continue
        if any(list(source.keys[:1]) == list(other.keys[:1]) for other in sources):
            continue  # every split of a single file holds the same volume
        sources.append(source)
    if not sources and problem is not None:
        raise problem
    return sources


def list_volumes(place: VolumePlace, start: int, count: int, find: str = "") -> dict[str, Any]:
    """List some volumes of a place, as JSON; arguments are those of `catalog.list_cases`.

    Where reading a volume takes long, its key alone is listed.
    """
    keys, wanted = place.source.keys, find.casefold().strip()
    total: int | None = len(keys)
    indices: Sequence[int] = range(start, min(start + count, len(keys)))
    if wanted:
        matches = (i for i, key in enumerate(keys) if wanted in key.casefold())
        positions = list(islice(matches, start + count + 1))
        total = len(positions) if len(positions) <= start + count else None
        indices = positions[start : start + count]
    return {"total": total, "cases": [_entry(place, index) for index in indices]}


def _entry(place: VolumePlace, index: int) -> dict[str, Any]:
    key = place.source.keys[index]
    if not place.light:
        return {"index": index, "key": key}
    try:
        return {"index": index, **describe_volume(place.case(index))}
    except CaseError as error:
        return {"index": index, "key": key, "error": str(error)}


def axis_of(case: VolumeCase) -> str:
    """Return the way a volume is cut: "axial", "coronal" or "sagittal"."""
    return case.geometry.view.axis if case.geometry else "axial"


def describe_volume(case: VolumeCase) -> dict[str, Any]:
    """Describe a volume as people may know it before they play."""
    return {
        "key": case.key,
        "target": case.target,
        "modality": case.modality,
        "synthetic": case.synthetic,
        "truth_known": case.truth_known,
        "depth": case.depth,
        "height": case.height,
        "width": case.width,
        "spacing": case.spacing,
        "axis": axis_of(case),
    }


def thumbnail_of(case: VolumeCase) -> bytes:
    """Return a small JPEG of the slice in the middle."""
    image = Image.fromarray(case.rgb(case.depth // 2))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
