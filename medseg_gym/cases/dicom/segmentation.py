"""DICOM SEG: which frame shows which segment on which slice of the images.

Frames are decoded one by one with pydicom. (highdicom reads SEG too, but as a whole and only where
the file keeps to the standard in every respect; the tests compare with it.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, quiet
from medseg_gym.cases.dicom.images import read_frame_of_whole
from medseg_gym.cases.dicom.planes import Plane, frame_item
from medseg_gym.cases.dicom.series import SAME, Series
from medseg_gym.cases.dicom.structures import listed, note_on_names
from medseg_gym.cases.files import Damaged, Defect, decoding
from medseg_gym.cases.volumes import WAY_OUT, name_grids


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
        planes: Where the frames lie (as `Plane.as_facts`), if that is not where the slice lies:
            they are carried over.
        thickness: Millimetres along their normal that those frames stand for.
    """

    number: int
    target: str
    slice: int
    parts: tuple[int, ...]
    area: int
    labelmap: bool = False
    planes: tuple[list[float], ...] = ()
    thickness: float = 0.0

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> Placed:
        """Return what `dataclasses.asdict` made of one, after JSON."""
        listed: dict[str, Any] = {
            "parts": tuple(fields["parts"]),
            "planes": tuple(fields["planes"]),
        }
        return cls(**{**fields, **listed})


def scan_segmentation(path: Path, name: str) -> dict[str, Any]:
    """Read what a SEG refers to, and count the pixels of every frame.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.

    Returns:
        `segments`: number and name; `series`: UIDs that it refers to; `frames`: per frame its
        sources (SOPInstanceUID and frame number) and the pixels per segment number; `labelmap`;
        `gap`: millimetres between slices as the file has them, or None; `notes`.

    Raises:
        Damaged: It cannot be decoded.
    """
    _, header = read_frame_of_whole(path, name, 0)
    notes: list[Defect] = []
    with quiet(), decoding(name):
        segments, unnamed = [], []
        for item in header.get("SegmentSequence") or ():
            title = _segment_name(item)
            if not title:
                title = f"segment {item.SegmentNumber}"
                unnamed.append(title)
            segments.append([int(item.SegmentNumber), title])
        if not segments:
            raise Damaged(name, "names no segments")
        notes += note_on_names(name, "segments without a label, called by their number", unnamed)
        if str(header.get("SegmentationType", "")) == "FRACTIONAL":
            kind = str(header.get("SegmentationFractionalType", "") or "unknown").lower()
            cause = (
                f"fractional segments ({kind}): pixels of at least half of "
                f"{_largest_fraction(header, name)} belong to the target"
            )
            notes.append(Defect(name, cause, note=True))
        series = [
            str(item.SeriesInstanceUID)
            for item in header.get("ReferencedSeriesSequence") or ()
            if "SeriesInstanceUID" in item
        ]
        groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        labelmap = str(header.get("SegmentationType", "")) == "LABELMAP"
        frames = []
        for number in range(int(header.get("NumberOfFrames", 1) or 1)):
            own = groups[number] if number < len(groups) else None
            shows = None if labelmap else _segment_number([own, shared], name)
            frames.append((_sources([own, shared]), shows))
        gap = _gap(header)
    scanned = []
    for number, (sources, shown) in enumerate(frames):
        labels = segment_values(path, name, number)
        counts = np.bincount(labels.ravel(), minlength=2)
        if shown is None:  # a label map holds all segments in one frame
            areas = [[int(v), int(counts[v])] for v in np.flatnonzero(counts) if v]
        else:
            areas = [[shown, int(counts[1:].sum())]]
        scanned.append([sources, areas])
    return {
        "segments": segments,
        "series": series,
        "frames": scanned,
        "labelmap": labelmap,
        "gap": gap,
        "notes": [note.as_dict() for note in (*notes, *_notes_on_frames(name, segments, scanned))],
    }


def _notes_on_frames(
    path: str, segments: list[list[Any]], frames: list[list[Any]]
) -> Iterator[Defect]:
    empty = [i for i, (_, areas) in enumerate(frames) if not any(area for _, area in areas)]
    if empty:
        cause = "frames without a pixel of a segment"
        yield Defect.counting(path, cause, len(empty), f"frame {empty[0]}")
    seen = {segment for _, areas in frames for segment, area in areas if area}
    if lacking := [title for number, title in segments if number and number not in seen]:
        cause = "segments without a pixel in any frame"
        yield Defect.counting(path, cause, len(lacking), listed(lacking))
    counts = Counter(title for number, title in segments if number in seen)
    shared = [title for title, count in counts.items() if count > 1]
    yield from note_on_names(path, "labels of several segments, each with its own cases", shared)


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
        return (pixels * 2.0 >= _largest_fraction(header, name)).astype(np.uint8)
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
    """Why a frame has no slice.

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
    """Index of the slice that a frame of a SEG lies on, or why there is none."""
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
    """The image that a frame is compared with: the one it refers to, else the nearest."""
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


def _segment_name(segment: Any) -> str:
    label = str(segment.get("SegmentLabel", "") or "").strip()
    if label:
        return label
    codes = segment.get("SegmentedPropertyTypeCodeSequence")
    return str(codes[0].get("CodeMeaning", "") or "").strip() if codes else ""


def _largest_fraction(header: Any, name: str) -> int:
    largest = int(header.get("MaximumFractionalValue", 255) or 0)
    if largest < 1:
        raise Damaged(name, f"MaximumFractionalValue is {largest}: no fraction can be told")
    return largest


def _gap(header: Any) -> float | None:
    """Millimetres between slices, as the file says."""
    measures = frame_item(header, 0, "PixelMeasuresSequence")
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = measures.get(keyword)
        if value not in (None, "") and 0 < abs(float(value)) < np.inf:
            return abs(float(value))
    return None


def _segment_number(places: list[Any], name: str) -> int:
    for place in places:
        item = None if place is None else place.get("SegmentIdentificationSequence")
        if item:
            return int(item[0].ReferencedSegmentNumber)
    raise Damaged(name, "does not say which segment its frames show")


def _sources(places: list[Any]) -> list[list[Any]]:
    sources: dict[tuple[str, int], None] = {}
    for place in places:
        for derivation in (None if place is None else place.get("DerivationImageSequence")) or ():
            for source in derivation.get("SourceImageSequence") or ():
                numbers = source.get("ReferencedFrameNumber")
                many = numbers if hasattr(numbers, "__len__") else [numbers or 1]
                for number in many:
                    sources[str(source.ReferencedSOPInstanceUID), int(number) - 1] = None
    return [list(source) for source in sources]
