"""Targets on slices as records: keys, groups, spacing, and which way up a slice is shown."""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.dicom.facts import Facts
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.series import Series
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.files import Record

MODALITIES = {
    "CT": "CT",
    "MR": "MRI",
    **dict.fromkeys(("CR", "DX", "DR", "MG", "XA", "RF", "RG", "PX", "IO"), "X-ray"),
    **dict.fromkeys(("US", "IVUS", "BDUS"), "ultrasound"),
    **dict.fromkeys(("OP", "OPV"), "fundus"),
    "ES": "endoscopy",
    **dict.fromkeys(("SM", "GM"), "microscopy"),
}
_LETTERS = {"axial": "z", "coronal": "y", "sagittal": "x"}


def record_of(one: Placed, name: str, title: str, kind: str, series: Series) -> Record:
    """Make the record of a target on a slice.

    Args:
        one: The target.
        name: Path of the SEG or RTSTRUCT relative to the root.
        title: What the key begins with: the path, or the file's name where the root is a file.
        kind: "seg" or "rtstruct".
        series: The images.
    """
    view, facts, frame = series.view, series.facts, series.frames[one.slice]
    size = (facts["rows"], facts["columns"])
    turn = [False] * 3
    if view is not None:
        size = (view.shape[1], view.shape[2])
        # A frame is (row, column) but the view's voxel axes are (column, row).
        turn = [view.order[1] == 0, view.flips[1], view.flips[2]]
    letter = "f" if view is None else _LETTERS[view.axis]
    plane = frame.plane
    located = plane is not None and (kind == "rtstruct" or one.planes)
    return Record(
        key=f"{title}/{letter}{one.slice:03d}/{one.number}-{one.target}",
        target=one.target,
        files=(frame.file, name),
        place={
            "kind": kind,
            "volume": "" if view is None else f"{title}/{one.number}-{one.target}",
            "slice": one.slice,
            "frame": frame.number,
            "whole": frame.file in series.whole,
            "parts": list(one.parts),
            "number": one.number,
            "labelmap": kind == "seg" and one.labelmap,
            "turn": turn,
            "plane": plane.as_facts() if plane is not None and located else None,
            "planes": [list(facts) for facts in one.planes],
            "thickness": one.thickness,
        },
        group=facts["patient"] or facts["study"] or series.uid,
        modality=MODALITIES.get(facts["modality"], ""),
        spacing=_spacing(plane, turn[0], facts),
        size=size,
        area=one.area,
    )


def turned(array: np.ndarray, turn: list[bool]) -> np.ndarray:
    """Turn a stored frame as it is shown: swap rows and columns, reverse rows and columns."""
    if turn[0]:
        array = array.swapaxes(0, 1)
    if turn[1]:
        array = array[::-1]
    if turn[2]:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _spacing(plane: Plane | None, swapped: bool, facts: Facts) -> tuple[float, float] | None:
    spacing = plane.spacing if plane is not None else facts.get("spacing")
    if spacing is None:
        return None
    return (spacing[1], spacing[0]) if swapped else (spacing[0], spacing[1])
