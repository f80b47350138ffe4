"""Read a DICOM SEG: the segments and sources of its frames, and their pixels.

Frames are decoded one by one with pydicom. (highdicom reads SEG too, but as a whole and only where
the file keeps to the standard in every respect; the tests compare with it.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import quiet
from medseg_gym.cases.dicom.frames import read_frame_of_whole
from medseg_gym.cases.dicom.planes import frame_item
from medseg_gym.cases.dicom.truth.structures import listed, note_on_names
from medseg_gym.cases.files import Damaged, Defect, decoding


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
    """Read a frame of a SEG: segment numbers of a label map, else 0 and 1.

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
    """Return millimetres between slices, as the file says."""
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
