"""DICOM RTSTRUCT: regions and their closed planar contours, as the file lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, quiet
from medseg_gym.cases.files import Damaged, Defect, decoding, require_file

MAX_BYTES = 1 << 29
"""Bytes of a structure set, which is read as a whole."""

PLAIN, EXCLUSIVE = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed planar contour.

    Args:
        roi: Number of its region.
        points: (N, 3) float, in mm (left, back, up).
        sop: Instance that it was drawn on, or "".
        number: Frame of that instance, from 0.
        exclusive: Of type CLOSEDPLANAR_XOR.
    """

    roi: int
    points: np.ndarray
    sop: str
    number: int
    exclusive: bool = False


@dataclass(frozen=True)
class StructureSet:
    """The contours of an RTSTRUCT.

    Args:
        names: Names of the regions by number.
        frames_of_reference: Their frames of reference by number.
        series: SeriesInstanceUIDs that the set refers to.
        contours: All closed planar contours.
        notes: What it holds besides, and what it lacks.
    """

    names: dict[int, str]
    frames_of_reference: dict[int, str]
    series: tuple[str, ...]
    contours: tuple[Contour, ...]
    notes: tuple[Defect, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the points."""
        return sum(contour.points.nbytes for contour in self.contours)


def read_structures(path: Path, name: str) -> StructureSet:
    """Read an RTSTRUCT.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.

    Raises:
        Damaged: It cannot be read, its numbers are no contours, or two regions have one number.
    """
    from pydicom import dcmread

    require_file(path, name, MAX_BYTES)
    with quiet(), decoding(name):
        data = dcmread(path, force=True)
        names: dict[int, str] = {}
        references: dict[int, str] = {}
        unnamed = []
        for roi in data.get("StructureSetROISequence") or ():
            number = int(roi.ROINumber)
            if number in names:
                raise Damaged(name, f"gives the number {number} to two regions")
            title = str(roi.get("ROIName", "") or "").strip()
            if not title:
                title = f"region {number}"
                unnamed.append(title)
            names[number] = title
            references[number] = str(roi.get("ReferencedFrameOfReferenceUID", "") or "")
        contours: list[Contour] = []
        skipped: Counter[tuple[str, int]] = Counter()
        drawn: set[int] = set()
        for roi in data.get("ROIContourSequence") or ():
            number = int(roi.ReferencedROINumber)
            for place, item in enumerate(roi.get("ContourSequence") or ()):
                drawn.add(number)
                kind = str(item.get("ContourGeometricType", "") or PLAIN).strip()
                points = _points(item, name, f"region {number}, contour {place}")
                if kind not in (PLAIN, EXCLUSIVE) or len(points) < 3:
                    few = "of under three points " if kind in (PLAIN, EXCLUSIVE) else ""
                    skipped[f"{kind} contours {few}are no closed planar contours", number] += 1
                else:
                    sop, frame = _drawn_on(item)
                    contours.append(Contour(number, points, sop, frame, kind == EXCLUSIVE))
        notes = [
            Defect.counting(name, cause, count, f"region {names.get(number, number)!r}")
            for (cause, number), count in skipped.items()
        ]
        notes += _notes_on_names(name, names, unnamed, drawn)
        return StructureSet(
            names, references, tuple(_referenced_series(data)), tuple(contours), tuple(notes)
        )


def facts_of_regions(structures: StructureSet) -> Facts:
    """Return the references of a structure set in the form of `seg` facts."""
    references = [uid for uid in structures.frames_of_reference.values() if uid]
    return {
        "series": list(structures.series),
        "sops": sorted({c.sop for c in structures.contours if c.sop})[:1],
        "frame_of_reference": references[0] if references else "",
    }


def listed(names: list[str], limit: int = 5) -> str:
    """Return the first of some names: "'a', 'b', ..."."""
    return ", ".join([*map(repr, names[:limit]), *["..."][: len(names) > limit]])


def note_on_names(path: str, cause: str, names: list[str]) -> Iterator[Defect]:
    """Yield a note that counts names, where there are any."""
    if names:
        yield Defect(path, f"{cause}: {len(names)} ({listed(names)})", note=True)


def _notes_on_names(
    path: str, names: dict[int, str], unnamed: list[str], drawn: set[int]
) -> Iterator[Defect]:
    if empty := [title for number, title in names.items() if number not in drawn]:
        yield Defect.counting(path, "regions without a contour", len(empty), listed(empty))
    yield from note_on_names(path, "regions without a name, called by their number", unnamed)
    counts = Counter(title for number, title in names.items() if number in drawn)
    shared = [title for title, count in counts.items() if count > 1]
    yield from note_on_names(path, "names of several regions, each with its own cases", shared)


def _drawn_on(item: Any) -> tuple[str, int]:
    images = item.get("ContourImageSequence")
    if not images:
        return "", 0
    frame: Any = images[0].get("ReferencedFrameNumber") or 1
    first = frame[0] if hasattr(frame, "__len__") and not isinstance(frame, str) else frame
    return str(images[0].get("ReferencedSOPInstanceUID", "") or ""), int(first) - 1


def _points(item: Any, name: str, place: str) -> np.ndarray:
    content = item.get("ContourData")
    numbers = np.array([] if content is None else content, float).ravel()
    if numbers.size % 3 or not np.isfinite(numbers).all():
        raise Damaged(name, f"{numbers.size} numbers are no points of three", place)
    return numbers.reshape(-1, 3)


def _referenced_series(data: Any) -> Iterator[str]:
    for frame in data.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                if "SeriesInstanceUID" in series:
                    yield str(series.SeriesInstanceUID)
