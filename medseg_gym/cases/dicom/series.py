"""Image series put together from single files: by SeriesInstanceUID, in order of position."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import median_low
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.files import Defect
from medseg_gym.cases.volumes import View
from medseg_gym.errors import CaseError

GAP = 1.5
"""Slices further apart than this many times the usual distance have others missing between."""


SAME = 0.01
"""Positions that differ by less, in mm, are one: coordinates are rounded to text."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of a series.

    Args:
        file: Path relative to the root.
        number: Frame within the file, from 0.
        sop: SOPInstanceUID of the file.
        plane: Where it lies, or None where the file does not say.
    """

    file: str
    number: int
    sop: str
    plane: Plane | None


@dataclass(eq=False)
class Series:
    """The frames of one SeriesInstanceUID.

    Args:
        uid: SeriesInstanceUID.
        facts: Facts of its first file.
        frames: In the order of slices: upwards, backwards or leftwards; by InstanceNumber where
            positions are unknown.
        view: How every frame is shown; None where positions are unknown.
        whole: Files that are best read as a whole.
        notes: What is wrong with it.
    """

    uid: str
    facts: Facts
    frames: list[Frame]
    view: View | None
    whole: frozenset[str] = frozenset()
    notes: list[Defect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_sop = {(f.sop, f.number): i for i, f in enumerate(self.frames)}
        planes = [f.plane for f in self.frames if f.plane is not None]
        self._heights = np.array([])
        if self.view is not None and planes:
            origins = np.array([plane.position for plane in planes])
            self._heights = planes[0].distance(origins)
        self.gap = usual_gap(self._heights)

    def index(self, sop: str, number: int = 0) -> int | None:
        """Return the slice that is frame `number` of instance `sop`."""
        return self._by_sop.get((sop, number))

    def holds(self, sop: str) -> bool:
        """Return whether the instance `sop` is part of the series."""
        return (sop, 0) in self._by_sop

    def at(self, point: np.ndarray) -> list[int]:
        """Return slices whose plane holds a (3,) point in mm, up to a quarter of their distance."""
        if not self._heights.size:
            return []
        plane = self.frames[0].plane
        assert plane is not None  # there are heights
        apart = np.abs(self._heights - plane.distance(point[None])[0])
        nearest = float(apart.min())
        if nearest > max(self.gap / 4, SAME):
            return []
        return [int(i) for i in np.flatnonzero(apart <= nearest + SAME)]

    def nearest(self, point: np.ndarray, ties: bool = True) -> list[int]:
        """Return slices nearest to a (3,) point in mm, if it lies within half of their distance.

        Between slices that are further apart than usual (others are missing) it must lie within
        half of the usual distance.

        Args:
            point: In mm.
            ties: Exactly halfway, give the slices on both sides; else those of the first alone.

        Returns:
            None, one, or all slices that lie at one place.
        """
        if not self._heights.size:
            return []
        plane = self.frames[0].plane
        assert plane is not None  # there are heights
        offsets = self._heights - plane.distance(point[None])[0]
        apart = np.abs(offsets)
        closest = np.flatnonzero(apart <= apart.min() + SAME / 10)
        first = closest[0]
        beyond = apart[np.sign(offsets) == -np.sign(offsets[first])]
        step = apart[first] + beyond.min() if beyond.size else np.inf
        if step > GAP * self.gap and apart[first] > self.gap / 2 + SAME / 10:
            return []
        places = offsets[closest] if ties else offsets[[first]]
        among = (np.abs(offsets[:, None] - places) <= SAME).any(axis=1)
        return [int(i) for i in np.flatnonzero(among)]


def usual_gap(heights: np.ndarray) -> float:
    """Return the median distance of neighbouring slices in mm; 1 for a single slice."""
    steps = np.diff(np.unique(np.round(heights, 3)))
    return float(median_low(steps)) if steps.size else 1.0


def assemble(files: Mapping[str, Facts]) -> Iterator[Series]:
    """Put series together.

    Args:
        files: Facts of every file of kind "image", by path.

    Yields:
        Series in the order of their first files; frames that do not fit the others are left out
        and named in `notes`.
    """
    by_uid: dict[str, list[str]] = defaultdict(list)
    for name, facts in files.items():
        by_uid[facts["series"]].append(name)
    for uid, names in by_uid.items():
        notes: list[Defect] = []
        kept = list(_consistent(names, files, notes))
        frames = [
            Frame(n, i, files[n]["sop"], None if plane is None else Plane.of(plane))
            for n in kept
            for i, plane in enumerate(files[n]["planes"])
        ]
        yield _ordered(uid, kept, files, frames, notes)


def _consistent(names: list[str], files: Mapping[str, Facts], notes: list[Defect]) -> Iterator[str]:
    kinds = {name: _kind(files[name]) for name in names}
    usual = Counter(kinds.values()).most_common(1)[0][0]
    first = next(name for name in names if kinds[name] == usual)
    patient = files[first]["patient"]
    seen: dict[str, str] = {}
    for name in names:
        facts = files[name]
        if facts["patient"] != patient:
            what = f"the same SeriesInstanceUID as {first!r} but another PatientID"
        elif kinds[name] != usual:
            what = _difference(kinds[name], usual, first)
        elif facts["sop"] in seen:
            what = f"the same SOPInstanceUID as {seen[facts['sop']]!r}"
        else:
            seen[facts["sop"]] = name
            yield name
            continue
        notes.append(Defect(name, f"has {what}; it is left out of the series"))


_KIND = ("another size", "another orientation", "another pixel spacing")


def _kind(facts: Facts) -> tuple[Any, ...]:
    plane = next((plane for plane in facts["planes"] if plane is not None), None)
    turned = None if plane is None else tuple(round(v, 3) + 0.0 for v in plane[3:9])
    spacing = None if plane is None else tuple(round(v, 4) for v in plane[9:11])
    return (facts["rows"], facts["columns"]), turned, spacing


def _difference(own: tuple, usual: tuple, first: str) -> str:
    if usual[1] is not None and own[1] is None:
        return "no usable position, orientation or pixel spacing, unlike the rest of its series"
    texts = [
        f"{what} ({_text(have)} instead of {_text(want)})"
        for what, have, want in zip(_KIND, own, usual, strict=True)
        if have != want
    ]
    return f"{' and '.join(texts)} than the rest of its series (as {first!r})"


def _text(value: Any) -> str:
    return "unknown" if value is None else " ".join(f"{number:g}" for number in value)


def _ordered(
    uid: str,
    names: list[str],
    files: Mapping[str, Facts],
    frames: list[Frame],
    notes: list[Defect],
) -> Series:
    facts = files[names[0]]
    whole = frozenset(name for name in names if files[name]["whole"])
    view = None
    planes = [frame.plane for frame in frames]
    if planes[0] is not None and all(plane is not None for plane in planes):
        try:
            view = planes[0].view(facts["rows"], facts["columns"])
        except CaseError as error:
            notes.append(Defect(names[0], str(error)))
    if view is None:
        frames.sort(key=lambda frame: (files[frame.file]["number"], frame.file, frame.number))
        bare = [replace(frame, plane=None) for frame in frames]
        return Series(uid, facts, bare, None, whole, notes)
    first = planes[0]
    assert first is not None
    turn = -1.0 if view.flips[0] else 1.0
    heights = {
        id(frame): turn * float(first.distance(frame.plane.position[None])[0])
        for frame in frames
        if frame.plane is not None
    }
    frames.sort(key=lambda frame: (round(heights[id(frame)], 3), frame.file, frame.number))
    _note_gaps([heights[id(frame)] for frame in frames], frames, notes)
    return Series(uid, facts, frames, view, whole, notes)


def _note_gaps(heights: list[float], frames: list[Frame], notes: list[Defect]) -> None:
    gap = usual_gap(np.array(heights))
    steps = np.diff(heights)
    for i in np.flatnonzero(steps > GAP * gap):
        missing = round(float(steps[i]) / gap) - 1
        notes.append(
            Defect(
                frames[i].file,
                f"slices missing between this one and {frames[i + 1].file!r}: {missing}; these two "
                f"lie {steps[i]:.4g} mm apart, others {gap:.4g} mm",
                note=True,
            )
        )
    same = int(np.count_nonzero(steps < 0.001))
    if same:
        first = int(np.flatnonzero(steps < 0.001)[0])
        notes.append(
            Defect(
                frames[first + 1].file,
                f"{same} slices of its series lie where another one lies already, the first where "
                f"{frames[first].file!r} does (several phases or echoes?)",
                note=True,
            )
        )


def series_of(truth: Facts, series: list[Series], what: str) -> Series | str:
    """Return the images that truth belongs to, or the reason why there are none.

    Args:
        truth: `series`: UIDs it refers to; `sops`: instances; `frame_of_reference`.
        series: All series.
        what: What the truth is called in errors.
    """
    for uid in truth["series"]:
        for one in series:
            if one.uid == uid:
                return one
    for sop in truth["sops"]:
        for one in series:
            if one.holds(sop):
                return one
    if truth["series"]:
        return f"refers to series {truth['series'][0]}, which is not among the files"
    if truth["sops"]:
        return f"refers to instance {truth['sops'][0]}, which is not among the files"
    near = [s for s in series if s.facts["frame_of_reference"] == truth["frame_of_reference"]]
    if not truth["frame_of_reference"] or not near:
        return f"no series shares the frame of reference of this {what}"
    if len(near) > 1:
        return f"refers to no series, and {len(near)} series share its frame of reference"
    return near[0]
