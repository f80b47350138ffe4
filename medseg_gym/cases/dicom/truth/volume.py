"""One target of a SEG or RTSTRUCT on every slice of a series."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medseg_gym.cases.dicom.facts import read_facts
from medseg_gym.cases.dicom.series import Series, series_of
from medseg_gym.cases.dicom.truth.contours import draw, place_contours
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.dicom.truth.segment_slices import place_segments
from medseg_gym.cases.dicom.truth.segmentation import scan_segmentation, segment_values
from medseg_gym.cases.dicom.truth.structures import facts_of_regions, read_structures
from medseg_gym.cases.files import Damaged, Defect
from medseg_gym.errors import CaseError, nearest


def read_truth(
    truth: Path, label: str, series: Series, left_out: dict[str, int]
) -> list[np.ndarray]:
    """Read the masks of a target.

    Args:
        truth: The SEG or RTSTRUCT.
        label: Name of the segment or region, whatever its case; where the file holds one alone, it
            is taken.
        series: The images.
        left_out: Counts by reason, added to.

    Returns:
        (rows, columns) bool, one per frame of the series, as stored.

    Raises:
        CaseError: It is no such file, belongs to other images, or has no such target.
    """
    name = str(truth)
    facts = read_facts(truth, name)
    size = (series.facts["rows"], series.facts["columns"])
    masks = [np.zeros(size, bool) for _ in series.frames]
    if facts["kind"] == "seg":
        scan = scan_segmentation(truth, name)
        sops = [source[0] for sources, _ in scan["frames"] for source in sources]
        _require_own({**facts, "series": scan["series"], "sops": sops[:1]}, series, name)
        names = {number: text for number, text in scan["segments"]}
        for one in _of(place_segments(name, facts, scan, series), names, label, name, left_out):
            for frame in one.parts:
                values = segment_values(truth, name, frame)
                masks[one.slice] |= values == (one.number if one.labelmap else 1)
    elif facts["kind"] == "rtstruct":
        structures = read_structures(truth, name)
        _require_own(facts_of_regions(structures), series, name)
        names = dict(structures.names)
        placed = place_contours(name, structures, series)
        for one in _of(placed, names, label, name, left_out):
            plane = series.frames[one.slice].plane
            assert plane is not None  # it was placed there
            contours = [structures.contours[number] for number in one.parts]
            masks[one.slice] |= draw(contours, plane, *size)
    else:
        raise CaseError(f"{truth} is neither a DICOM SEG nor an RTSTRUCT")
    return masks


def _require_own(facts: dict, series: Series, name: str) -> None:
    images = series_of(facts, [series], "truth")
    if isinstance(images, str):
        raise Damaged(name, images)


def _of(
    placed: Iterable[Placed | Defect],
    names: dict[int, str],
    label: str,
    file: str,
    left_out: dict[str, int],
) -> list[Placed]:
    """Choose the parts of one target; what has no slice is an error, notes are counted."""
    numbers = [n for n, name in names.items() if name.strip().lower() == label.strip().lower()]
    if not numbers and len(names) == 1:
        numbers = list(names)
    if not numbers:
        known = sorted(names.values())
        raise CaseError(
            f"{file}: no target {label!r}{nearest(label, known)}; it holds {', '.join(known)} "
            "(--label NAME)"
        )
    chosen = []
    for one in placed:
        if isinstance(one, Placed):
            if one.number in numbers:
                chosen.append(one)
        elif one.note:
            left_out[one.cause] = left_out.get(one.cause, 0) + 1
        else:
            raise Damaged(file, one.cause)
    return chosen
