"""Frames of a DICOM SEG placed on the slices of a series: by reference, else by position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg_gym.cases.dicom.facts import Facts
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.series import SAME, Series
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.files import Defect
from medseg_gym.cases.volumes import WAY_OUT, name_grids


def place_segments(
    name: str, facts: Facts, scan: dict[str, Any], series: Series
) -> Iterator[Placed | Defect]:
    """Find the slice of every frame: by the instance that it refers to, else by its position.

    Args:
        name: Path of the SEG relative to the root.
        facts: Its facts.
        scan: What `scan_segmentation` found.
        series: The images.

    Yields:
        A target on a slice, in order; a Defect for each reason why frames that show something
        have no slice, and a note on frames that say no image.
    """
    names = {number: text for number, text in scan["segments"]}
    frames: dict[tuple[int, int], list[tuple[int, int]]] = {}
    lost: dict[str, list[str]] = {}
    alone = 0
    for number, (sources, areas) in enumerate(scan["frames"]):
        if not any(area for _, area in areas):
            continue  # counted by the scan
        slice_index = slice_of_frame(sources, number, facts, series)
        if isinstance(slice_index, Lost):
            lost.setdefault(slice_index.cause, []).append(slice_index.detail)
            continue
        alone += not sources
        for segment, area in areas:
            if segment not in names:
                problem = f"show segment {segment}, which SegmentSequence does not name"
                lost.setdefault(problem, []).append("")
            elif area:
                frames.setdefault((segment, slice_index), []).append((number, area))
    for problem, details in lost.items():
        yield Defect(name, f"{len(details)} of {len(scan['frames'])} frames: {problem}{details[0]}")
    if alone:
        cause = f"frames that refer to no image, placed by their positions: {alone}"
        yield Defect(name, cause, note=True)
    for (segment, index), parts in sorted(frames.items()):
        yield Placed(
            segment,
            names[segment],
            index,
            tuple(number for number, _ in parts),
            max(area for _, area in parts),
            scan["labelmap"],
        )


@dataclass(frozen=True)
class Lost:
    """The reason why a frame has no slice.

    Args:
        cause: In words that follow a number of frames.
        detail: What comes after them for this frame.
        grid: Its pixels lie elsewhere than those of the images, and it says where: the frame can
            be carried over.
    """

    cause: str
    detail: str = ""
    grid: bool = False


def slice_of_frame(
    sources: list[list[Any]], number: int, facts: Facts, series: Series
) -> int | Lost:
    """Return the index of the slice that a frame of a SEG lies on, or why there is none."""
    plane_facts = facts["planes"][number] if number < len(facts["planes"]) else None
    plane = None if plane_facts is None else Plane.of(plane_facts)

    def elsewhere(cause: str) -> Lost:
        shown = None if series.view is None else _image_plane(sources, plane, series)
        if plane is None or shown is None:
            return Lost(cause)
        size = (1, facts["rows"], facts["columns"])
        images = (1, series.facts["rows"], series.facts["columns"])
        grids = name_grids(plane.grid(size), shown.grid(images))
        return Lost(cause, f": in the first of them {grids}; {WAY_OUT}", grid=True)

    size = (facts["rows"], facts["columns"])
    have = (series.facts["rows"], series.facts["columns"])
    if size != have:
        return elsewhere(f"are {size[0]} x {size[1]} pixels, the images {have[0]} x {have[1]}")
    if len(sources) == 1:
        index = series.index(sources[0][0], sources[0][1])
        if index is None:
            return Lost("refer to instances that are not among the images")
        shown = series.frames[index].plane
        if plane is not None and shown is not None:
            off = abs(float(shown.distance(plane.position[None])[0]))
            if off > max(series.gap / 4, SAME) or not plane.same_grid(shown):
                return elsewhere("lie elsewhere than the images that they refer to")
        return index
    if plane is None:
        return Lost("say neither which image they belong to nor where they lie")
    among = [i for i in series.at(plane.position) if _may_be(series, i, sources)]
    if not among:
        return elsewhere("lie where no image is")
    if len(among) > 1:
        return Lost("lie where several images are, and do not say which one they belong to")
    shown = series.frames[among[0]].plane
    if shown is None or not plane.same_grid(shown):
        return elsewhere("have another pixel grid than the images")
    return among[0]


def _image_plane(sources: list[list[Any]], plane: Plane | None, series: Series) -> Plane | None:
    """Return the plane of the image that a frame refers to, else of the nearest one."""
    for sop, number in sources:
        if (index := series.index(sop, number)) is not None:
            return series.frames[index].plane
    planes = [frame.plane for frame in series.frames if frame.plane is not None]
    if plane is None or not planes:
        return None
    return min(planes, key=lambda one: abs(float(one.distance(plane.position[None])[0])))


def _may_be(series: Series, index: int, sources: list[list[Any]]) -> bool:
    frame = series.frames[index]
    return not sources or [frame.sop, frame.number] in sources
