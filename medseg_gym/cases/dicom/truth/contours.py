"""Contours of an RTSTRUCT on the slices of a series: each belongs to the slice nearest to it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.series import GAP, SAME, Series
from medseg_gym.cases.dicom.truth.filling import nesting, region_mask
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.dicom.truth.structures import Contour, StructureSet
from medseg_gym.cases.files import Defect

_NOWHERE = "that lie where no image is, over half a spacing from the nearest one"
_EMPTY = "that hold no pixel of their slice, or cancel each other"


def draw(
    contours: Sequence[Contour], plane: Plane, rows: int, columns: int, nested_holes: bool = False
) -> np.ndarray:
    """Draw the mask of the contours of one region on one slice.

    Contours that were drawn at different heights are combined height by height, then united: only
    those in one plane cut holes into each other.

    Args:
        contours: Of one region on one slice.
        plane: The slice.
        rows: Of the image.
        columns: Of the image.
        nested_holes: See `region_mask`.

    Returns:
        (H, W) bool, in the stored orientation: pixels whose centre lies inside.
    """
    mask = np.zeros((rows, columns), bool)
    for group in _by_height(contours, plane):
        outlines = [plane.pixels(contour.points) for contour in group]
        exclusive = [contour.exclusive for contour in group]
        mask |= region_mask(outlines, exclusive, rows, columns, nested_holes)
    return mask


def place_contours(
    name: str, structures: StructureSet, series: Series, nested_holes: bool = False
) -> Iterator[Placed | Defect]:
    """Find the slice of every contour and draw it.

    Args:
        name: Path of the RTSTRUCT relative to the root.
        structures: Its contours.
        series: The images.
        nested_holes: See `region_mask`.

    Yields:
        A target on a slice, in order; a Defect for each reason why contours have no slice, and
        notes that count the contours whose reading the file leaves open.
    """
    rows, columns = series.facts["rows"], series.facts["columns"]
    contours_of: dict[tuple[int, int], list[int]] = defaultdict(list)
    lost: Counter[tuple[int, str]] = Counter()
    noted: Counter[tuple[int, str]] = Counter()
    for number, contour in enumerate(structures.contours):
        problem = _stranger(contour, structures, series)
        index = problem or _slice_of(contour, series)
        if isinstance(index, int):
            contours_of[contour.roi, index].append(number)
            if _off(contour, series, index) > max(series.gap / 4, SAME):
                noted[contour.roi, "that lie between slices and count for the nearest one"] += 1
        elif index == _NOWHERE:
            noted[contour.roi, index] += 1
        else:
            lost[contour.roi, index] += 1
    for (roi, problem), count in lost.items():
        title = structures.names.get(roi, f"region {roi}")
        yield Defect(name, f"{count} contours of {title!r} {problem}")
    for (roi, index), numbers in sorted(contours_of.items()):
        plane = series.frames[index].plane
        assert plane is not None  # _slice_of found it by its position
        contours = [structures.contours[n] for n in numbers]
        mask = draw(contours, plane, rows, columns, nested_holes)
        area = int(np.count_nonzero(mask))
        for cause, count in _open_to_reading(contours, plane, nested_holes):
            noted[roi, cause] += count
        if not area:
            noted[roi, _EMPTY] += len(contours)
        yield Placed(roi, structures.names[roi], index, tuple(numbers), area)
    for (roi, cause), count in noted.items():
        title = structures.names[roi]
        if cause in (_NOWHERE, _EMPTY):
            yield Defect.counting(name, f"contours {cause}", count, f"region {title!r}")
        else:
            yield Defect(name, f"contours of {title!r} {cause}: {count}", note=True)


def _stranger(contour: Contour, structures: StructureSet, series: Series) -> str:
    """Return the reason why a contour does not belong to the series, or ""."""
    own = structures.frames_of_reference.get(contour.roi)
    if own is None:
        return "belong to a region that StructureSetROISequence does not name"
    reference = series.facts["frame_of_reference"]
    if own and reference and own != reference:
        return f"lie in another frame of reference ({own}) than the images ({reference})"
    return ""


def _slice_of(contour: Contour, series: Series) -> int | str:
    """Return the index of the slice, or the reason why there is none."""
    plane = series.frames[0].plane
    if series.view is None or plane is None:
        return "cannot be placed: the images have no position or orientation"
    heights = plane.distance(contour.points)
    middle = contour.points.mean(axis=0)
    if np.abs(heights - heights.mean()).max() > max(series.gap / 4, SAME):
        return "do not lie in the plane of an image: they are tilted against the slices"
    among = series.nearest(middle)
    named = series.index(contour.sop, contour.number) if contour.sop else None
    if not among:
        return _NOWHERE
    if named in among:  # it decides between images at one place, and exactly halfway
        return named
    if named is not None and _off(contour, series, named) > GAP * series.gap:
        return "lie elsewhere than the image that they refer to"
    chosen = series.nearest(middle, ties=False)
    if len(chosen) > 1:
        return "lie where several images are, and do not say which one they belong to"
    return chosen[0]


def _off(contour: Contour, series: Series, index: int) -> float:
    """Return the distance of a contour from a slice, in mm."""
    plane = series.frames[index].plane
    assert plane is not None  # the series has a view
    return abs(float(plane.distance(contour.points.mean(axis=0)[None])[0]))


def _by_height(contours: Sequence[Contour], plane: Plane) -> Iterator[list[Contour]]:
    """Group contours that lie in one plane, within a tenth of what makes two slices."""
    heights = np.array([float(plane.distance(c.points).mean()) for c in contours])
    order = np.argsort(heights, kind="stable")
    cuts = np.flatnonzero(np.diff(heights[order]) > ONE_PLANE) + 1
    for group in np.split(order, cuts):
        yield [contours[i] for i in sorted(group)]


ONE_PLANE = 0.1
"""Contours closer than this, in mm, lie in one plane: coordinates are rounded to text."""


def _open_to_reading(
    contours: Sequence[Contour], plane: Plane, nested_holes: bool
) -> Iterator[tuple[str, int]]:
    """Count contours of one region on one slice whose meaning the file leaves open."""
    for group in _by_height(contours, plane):
        plain = [plane.pixels(contour.points) for contour in group if not contour.exclusive]
        if plain and len(plain) < len(group):
            yield "of both types in one plane, the exclusive ones cut out of the others", len(group)
        if len(plain) > 1 and (count := int(nesting(plain).any(axis=1).sum())):
            if nested_holes:
                yield "strictly inside another one, taken as holes or islands in them", count
            else:
                yield "strictly inside another one, united with it (holes=nested cuts out)", count
