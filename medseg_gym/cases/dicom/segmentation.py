"""DICOM SEG: which frame shows which segment on which slice of the images.

Frames are decoded one by one with pydicom. (highdicom reads SEG too, but as a whole and only where
the file keeps to the standard in every respect; the tests compare with it.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, quiet
from medseg_gym.cases.dicom.pictures import read_frame_of_whole
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.series import Series
from medseg_gym.cases.files import Damaged, Defect, decoding


@dataclass(frozen=True)
class Placed:
    """A target on a slice of a series.

    Args:
        number: Number of the segment or region.
        target: Its name.
        slice: Index of the slice in its series.
        parts: Frames or contours that show it.
        area: Pixels.
        labelmap: Its frames hold segment numbers instead of 0 and 1.
    """

    number: int
    target: str
    slice: int
    parts: tuple[int, ...]
    area: int
    labelmap: bool = False


def scan_segmentation(path: Path, name: str) -> dict[str, Any]:
    """Read what a SEG refers to, and count the pixels of every frame.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.

    Returns:
        `segments`: number and name; `series`: UIDs that it refers to; `frames`: per frame its
        sources (SOPInstanceUID and frame number) and the pixels per segment number.

    Raises:
        Damaged: It cannot be decoded.
    """
    _, header = read_frame_of_whole(path, name, 0)
    with quiet(), decoding(name):
        segments = [
            [int(s.SegmentNumber), _segment_name(s)] for s in header.get("SegmentSequence", ())
        ]
        if not segments:
            raise Damaged(name, "names no segments")
        series = [
            str(item.SeriesInstanceUID)
            for item in header.get("ReferencedSeriesSequence", ())
            if "SeriesInstanceUID" in item
        ]
        groups = list(header.get("PerFrameFunctionalGroupsSequence", ()))
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        frames = []
        for number in range(int(header.get("NumberOfFrames", 1) or 1)):
            own = groups[number] if number < len(groups) else None
            labelmap = header.get("SegmentationType") == "LABELMAP"
            shows = None if labelmap else _segment_number([own, shared], name)
            frames.append((_sources([own, shared]), shows))
    found = []
    for number, (sources, shown) in enumerate(frames):
        labels = segment_values(path, name, number)
        counts = np.bincount(labels.ravel(), minlength=2)
        if shown is None:  # a label map holds all segments in one frame
            areas = [[int(v), int(counts[v])] for v in np.flatnonzero(counts) if v]
        else:
            areas = [[shown, int(counts[1:].sum())]]
        found.append([sources, areas])
    labelmap = bool(frames) and frames[0][1] is None
    return {"segments": segments, "series": series, "frames": found, "labelmap": labelmap}


def segment_values(path: Path, name: str, frame: int) -> np.ndarray:
    """A frame of a SEG: segment numbers of a label map, else 0 and 1.

    Fractional segmentations are cut at half of their largest value.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.
        frame: From 0.

    Returns:
        (H, W) unsigned integers, in the stored orientation.

    Raises:
        Damaged: It cannot be decoded.
    """
    pixels, header = read_frame_of_whole(path, name, frame)
    kind = str(header.get("SegmentationType", "BINARY"))
    if pixels.ndim != 2 or pixels.dtype.kind not in "ui":
        raise Damaged(name, f"{pixels.dtype} values are no segments", f"frame {frame}")
    if kind == "LABELMAP":
        return pixels.astype(np.uint16, copy=False)
    if kind == "FRACTIONAL":
        half = int(header.get("MaximumFractionalValue", 255)) / 2
        return (pixels >= half).astype(np.uint8)
    return (pixels > 0).astype(np.uint8)


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
        A target on a slice, in order; a Defect for each reason why frames have no slice.
    """
    names = {number: text for number, text in scan["segments"]}
    frames: dict[tuple[int, int], list[tuple[int, int]]] = {}
    lost: dict[str, int] = {}
    for number, (sources, areas) in enumerate(scan["frames"]):
        plane = facts["planes"][number] if number < len(facts["planes"]) else None
        found = _slice_of(sources, None if plane is None else Plane.of(plane), facts, series)
        if isinstance(found, str):
            lost[found] = lost.get(found, 0) + 1
            continue
        for segment, area in areas:
            if segment not in names:
                problem = f"show segment {segment}, which SegmentSequence does not name"
                lost[problem] = lost.get(problem, 0) + 1
            elif area:
                frames.setdefault((segment, found), []).append((number, area))
    for problem, count in lost.items():
        yield Defect(name, f"{count} of {len(scan['frames'])} frames: {problem}")
    for (segment, index), parts in sorted(frames.items()):
        yield Placed(
            segment,
            names[segment],
            index,
            tuple(number for number, _ in parts),
            max(area for _, area in parts),
            scan["labelmap"],
        )


def _slice_of(
    sources: list[list[Any]], plane: Plane | None, facts: Facts, series: Series
) -> int | str:
    """Index of the slice, or why there is none."""
    size = (facts["rows"], facts["columns"])
    have = (series.facts["rows"], series.facts["columns"])
    if size != have:
        return f"are {size[0]} x {size[1]} pixels, the images {have[0]} x {have[1]}"
    if len(sources) == 1:
        index = series.index(sources[0][0], sources[0][1])
        if index is None:
            return "refer to instances that are not among the images"
        shown = series.frames[index].plane
        if plane is not None and shown is not None:
            off = abs(float(shown.distance(plane.position[None])[0]))
            if off > max(series.gap / 4, 0.01) or not plane.same_grid(shown):
                return "lie elsewhere than the images that they refer to"
        return index
    if plane is None:
        return "say neither which image they belong to nor where they lie"
    among = [i for i in series.at(plane.position) if _may_be(series, i, sources)]
    if not among:
        return "lie where no image is"
    if len(among) > 1:
        return "lie where several images are, and do not say which one they belong to"
    shown = series.frames[among[0]].plane
    if shown is None or not plane.same_grid(shown):
        return "have another pixel grid than the images"
    return among[0]


def _may_be(series: Series, index: int, sources: list[list[Any]]) -> bool:
    frame = series.frames[index]
    return not sources or [frame.sop, frame.number] in sources


def _segment_name(segment: Any) -> str:
    label = str(segment.get("SegmentLabel", "") or "").strip()
    if label:
        return label
    codes = segment.get("SegmentedPropertyTypeCodeSequence")
    meaning = str(codes[0].get("CodeMeaning", "")) if codes else ""
    return meaning or f"segment {segment.SegmentNumber}"


def _segment_number(places: list[Any], name: str) -> int:
    for place in places:
        item = None if place is None else place.get("SegmentIdentificationSequence")
        if item:
            return int(item[0].ReferencedSegmentNumber)
    raise Damaged(name, "does not say which segment its frames show")


def _sources(places: list[Any]) -> list[list[Any]]:
    found: dict[tuple[str, int], None] = {}
    for place in places:
        for derivation in (None if place is None else place.get("DerivationImageSequence")) or ():
            for source in derivation.get("SourceImageSequence") or ():
                numbers = source.get("ReferencedFrameNumber")
                many = numbers if hasattr(numbers, "__len__") else [numbers or 1]
                for number in many:
                    found[str(source.ReferencedSOPInstanceUID), int(number) - 1] = None
    return [list(source) for source in found]
