"""DICOM RTSTRUCT: closed contours drawn into masks, holes left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, quiet
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.segmentation import Placed
from medseg_gym.cases.dicom.series import Series
from medseg_gym.cases.files import Damaged, Defect, decoding, require_file

MAX_BYTES = 1 << 29
"""Bytes of a structure set, which is read as a whole."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed planar contour.

    Args:
        roi: Number of its region.
        points: (N, 3) float, in mm (left, back, up).
        sop: Instance that it was drawn on, or "".
        number: Frame of that instance, from 0.
    """

    roi: int
    points: np.ndarray
    sop: str
    number: int


@dataclass(frozen=True)
class StructureSet:
    """The contours of an RTSTRUCT.

    Args:
        names: Names of the regions by number.
        frames_of_reference: Their frames of reference by number.
        series: SeriesInstanceUIDs that the set refers to.
        contours: All closed planar contours.
        skipped: Regions and contours that are no closed planar contours, in words.
    """

    names: dict[int, str]
    frames_of_reference: dict[int, str]
    series: tuple[str, ...]
    contours: tuple[Contour, ...]
    skipped: tuple[str, ...]

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
        Damaged: It cannot be read, or its numbers are no contours.
    """
    from pydicom import dcmread

    require_file(path, name, MAX_BYTES)
    with quiet(), decoding(name):
        data = dcmread(path, force=True)
        names, references = {}, {}
        for roi in data.get("StructureSetROISequence", ()):
            number = int(roi.ROINumber)
            names[number] = str(roi.get("ROIName", "") or "").strip() or f"region {number}"
            references[number] = str(roi.get("ReferencedFrameOfReferenceUID", "") or "")
        contours: list[Contour] = []
        skipped: dict[str, int] = {}
        for roi in data.get("ROIContourSequence", ()):
            number = int(roi.ReferencedROINumber)
            for place, item in enumerate(roi.get("ContourSequence") or ()):
                kind = str(item.get("ContourGeometricType", "CLOSED_PLANAR"))
                points = _points(item, name, f"region {number}, contour {place}")
                if kind not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR") or len(points) < 3:
                    what = f"{kind} contours of {names.get(number, number)!r}"
                    skipped[what] = skipped.get(what, 0) + 1
                    continue
                image = (item.get("ContourImageSequence") or [{}])[0]
                contours.append(
                    Contour(
                        number,
                        points,
                        str(image.get("ReferencedSOPInstanceUID", "")),
                        int(image.get("ReferencedFrameNumber", 1) or 1) - 1,
                    )
                )
        return StructureSet(
            names,
            references,
            tuple(_referenced_series(data)),
            tuple(contours),
            tuple(f"{count} {what}" for what, count in skipped.items()),
        )


def draw(contours: Sequence[Contour], plane: Plane, rows: int, columns: int) -> np.ndarray:
    """Pixels whose centre lies inside an odd number of contours: a contour in another is a hole.

    Args:
        contours: Of one region on one slice.
        plane: The slice.
        rows: Of the image.
        columns: Of the image.

    Returns:
        (H, W) bool, in the stored orientation.
    """
    outlines = [plane.pixels(contour.points) for contour in contours]
    starts = np.concatenate(outlines)
    ends = np.concatenate([np.roll(outline, -1, axis=0) for outline in outlines])
    return fill(starts, ends, rows, columns)


def fill(starts: np.ndarray, ends: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Even-odd filling: a pixel is inside if its row crosses an odd number of edges up to it.

    (skimage.draw.polygon asks every pixel about every edge, which takes several times as long as
    decoding the image; the tests compare with it.)

    Args:
        starts: (N, 2) float, row and column where each edge starts; pixel centres are whole.
        ends: (N, 2) float, where it ends.
        rows: Of the mask.
        columns: Of the mask.

    Returns:
        (H, W) bool.
    """
    low, high = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    first = np.clip(np.ceil(low), 0, rows).astype(np.intp)  # an edge covers low <= row < high
    counts = np.clip(np.ceil(high), 0, rows).astype(np.intp) - first
    edge = np.repeat(np.arange(len(starts)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    share = (row - starts[edge, 0]) / (ends[edge, 0] - starts[edge, 0])
    column = starts[edge, 1] + share * (ends[edge, 1] - starts[edge, 1])
    mask = np.zeros((rows, columns), bool)
    if not len(row):
        return mask
    top, bottom = int(row.min()), int(row.max()) + 1
    at = np.clip(np.ceil(column), 0, columns).astype(np.intp)
    crossings = np.bincount(
        (row - top) * (columns + 1) + at, minlength=(bottom - top) * (columns + 1)
    ).reshape(bottom - top, columns + 1)
    mask[top:bottom] = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
    return mask


def place_contours(
    name: str, structures: StructureSet, series: Series
) -> Iterator[Placed | Defect]:
    """Find the slice of every contour and draw it.

    Args:
        name: Path of the RTSTRUCT relative to the root.
        structures: Its contours.
        series: The images.

    Yields:
        A target on a slice, in order; a Defect for each reason why contours have no slice.
    """
    rows, columns = series.facts["rows"], series.facts["columns"]
    reference = series.facts["frame_of_reference"]
    found: dict[tuple[int, int], list[int]] = {}
    lost: dict[tuple[int, str], int] = {}
    for number, contour in enumerate(structures.contours):
        own = structures.frames_of_reference.get(contour.roi)
        if own is None:
            problem: int | str = "belong to a region that StructureSetROISequence does not name"
        elif own and reference and own != reference:
            problem = f"lie in another frame of reference ({own}) than the images ({reference})"
        else:
            problem = _slice_of(contour, series)
        if isinstance(problem, str):
            lost[contour.roi, problem] = lost.get((contour.roi, problem), 0) + 1
        else:
            found.setdefault((contour.roi, problem), []).append(number)
    for (roi, problem), count in lost.items():
        title = structures.names.get(roi, f"region {roi}")
        yield Defect(name, f"{count} contours of {title!r} {problem}")
    for (roi, index), numbers in sorted(found.items()):
        plane = series.frames[index].plane
        assert plane is not None  # _slice_of found it by its position
        mask = draw([structures.contours[n] for n in numbers], plane, rows, columns)
        area = int(np.count_nonzero(mask))
        yield Placed(roi, structures.names[roi], index, tuple(numbers), area)


def facts_of_regions(structures: StructureSet) -> Facts:
    """What a structure set refers to, as `seg` facts have it."""
    references = [uid for uid in structures.frames_of_reference.values() if uid]
    return {
        "series": list(structures.series),
        "sops": sorted({c.sop for c in structures.contours if c.sop})[:1],
        "frame_of_reference": references[0] if references else "",
    }


def _slice_of(contour: Contour, series: Series) -> int | str:
    if series.view is None:
        return "cannot be placed: the images have no position or orientation"
    center = contour.points.mean(axis=0)
    if contour.sop and (index := series.index(contour.sop, contour.number)) is not None:
        among = [index]
    else:
        among = series.at(center)
    if not among:
        return "lie where no image is"
    if len(among) > 1:
        return "lie where several images are, and do not say which one they belong to"
    plane = series.frames[among[0]].plane
    assert plane is not None  # the series has a view
    if np.abs(plane.distance(contour.points)).max() > max(series.gap / 4, 0.01):
        return "do not lie in the plane of an image"
    return among[0]


def _points(item: Any, name: str, place: str) -> np.ndarray:
    numbers = np.array(item.get("ContourData") or [], float)
    if numbers.size % 3 or not np.isfinite(numbers).all():
        raise Damaged(name, f"{numbers.size} numbers are no points of three", place)
    return numbers.reshape(-1, 3)


def _referenced_series(data: Any) -> Iterator[str]:
    for frame in data.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                if "SeriesInstanceUID" in series:
                    yield str(series.SeriesInstanceUID)
