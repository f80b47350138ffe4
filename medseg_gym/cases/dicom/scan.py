"""A DICOM series as a `VolumeCase`, with a SEG or RTSTRUCT as its truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, read_facts
from medseg_gym.cases.dicom.images import read_rgb_frame
from medseg_gym.cases.dicom.records import MODALITIES
from medseg_gym.cases.dicom.series import GAP, Series, assemble
from medseg_gym.cases.dicom.truth.volume import read_truth
from medseg_gym.cases.files import Damaged, Defect
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes import (
    VolumeGeometry,
    Window,
    longest_axis,
    parse_window,
    require,
    view_of,
)
from medseg_gym.cases.volumes.windows import NothingToSee
from medseg_gym.errors import CaseError

UNEVEN = 0.1
"""Slices may lie this share of their distance away from even spacing."""


def read_series(
    path: Path,
    target: str,
    truth: Path | None = None,
    modality: str = "",
    window: str = "",
    axis: str = "auto",
    uid: str = "",
    label: str = "",
) -> tuple[VolumeCase, dict[str, int]]:
    """Read a scan from a folder of DICOM files, or from one file of many frames.

    Args:
        path: Folder or file.
        target: What to segment, in words.
        truth: SEG or RTSTRUCT; None leaves the truth unknown.
        modality: As in `Case`; "" takes the series' own.
        window: As `parse_window` reads it; "" takes the files' own.
        axis: "axial", "coronal", "sagittal", or "auto", the one of the largest spacing.
        uid: SeriesInstanceUID, needed where the folder holds several series of images.
        label: Segment or region of the truth; "" is `target`, or the only one.

    Returns:
        The case, and counts of what was left out by reason.

    Raises:
        CaseError: No series or several, slices that are missing or lie unevenly, or a file or an
            option that cannot be used.
    """
    require("dicom", "pydicom", "nibabel")
    images, left_out = _images(path)
    series = _chosen(path, list(assemble(images)), uid)
    for note in series.notes:
        if not note.note:
            left_out[note.cause] = left_out.get(note.cause, 0) + 1
    modality = modality or MODALITIES.get(series.facts["modality"], "")
    geometry = geometry_of(path, series, axis)
    planes = read_planes(path, series, parse_window(window, modality, own=True), modality)
    case = VolumeCase(
        path.name,
        geometry.shown(_stored(planes)),
        geometry.shown(_stored(_truth_planes(truth, label or target, series, path, left_out))),
        target,
        modality,
        geometry.spacing if len(series.frames) > 1 else None,  # nothing says how thick one is
        source="file",
        truth_known=truth is not None,
        geometry=geometry,
    )
    return case, left_out


def geometry_of(path: Path, series: Series, axis: str = "auto") -> VolumeGeometry:
    """Return the grid of a series, for writing masks back.

    Args:
        path: What its files are relative to.
        series: The images.
        axis: As in `read_series`.

    Raises:
        CaseError: Slices that are missing, lie unevenly or do not say where.
    """
    affine = _affine(path, series)
    shape = (series.facts["columns"], series.facts["rows"], len(series.frames))
    if axis == "auto":
        axis = longest_axis(shape, affine)
    places = tuple((frame.file, frame.number) for frame in series.frames)
    return VolumeGeometry(shape, affine, view_of(shape, affine, axis), path, places)


def read_planes(path: Path, series: Series, window: Window, modality: str) -> list[np.ndarray]:
    """Read all frames of a series.

    Args:
        path: What its files are relative to.
        series: The images.
        window: Intensities shown black and white.
        modality: As in `Case`.

    Returns:
        (rows, columns) uint8, one per frame, as stored; a frame without anything in it is black.

    Raises:
        Damaged: A frame cannot be decoded.
    """
    planes = []
    for frame in series.frames:
        file, whole = path / frame.file if frame.file else path, frame.file in series.whole
        try:
            planes.append(
                read_rgb_frame(file, str(file), frame.number, window, modality, whole)[:, :, 0]
            )
        except Damaged as error:
            if not isinstance(error.__cause__, NothingToSee):
                raise
            size = (series.facts["rows"], series.facts["columns"])
            planes.append(np.zeros(size, np.uint8))  # ordinary at the ends of a scan
    return planes


def _images(path: Path) -> tuple[dict[str, Facts], dict[str, int]]:
    images: dict[str, Facts] = {}
    left_out: dict[str, int] = {}
    for name in walk(path):
        if isinstance(name, Defect):
            raise Damaged(str(path / name.path), name.cause)
        facts = read_facts(path / name if name else path, name or str(path))
        if facts["kind"] == "image":
            images[name] = facts
        else:
            foreign = facts["kind"] == "foreign"
            reason = "files that are not DICOM" if foreign else "DICOM files that are no images"
            left_out[reason] = left_out.get(reason, 0) + 1
    if not images:
        raise CaseError(f"{path}: there is no DICOM image in it")
    return images, left_out


def _chosen(path: Path, series: Sequence[Series], uid: str) -> Series:
    if uid:
        for one in series:
            if one.uid == uid:
                return one
        raise CaseError(f"{path}: no series {uid}; there are {_listed(series)}")
    if len(series) > 1:
        raise CaseError(
            f"{path} holds {len(series)} series of images: {_listed(series)}; choose one by its "
            "SeriesInstanceUID (--series UID)"
        )
    return series[0]


def _listed(series: Sequence[Series]) -> str:
    return ", ".join(f"{one.uid} ({one.facts['modality']}, {len(one.frames)})" for one in series)


def _affine(path: Path, series: Series) -> np.ndarray:
    """(4, 4): column, row and slice to millimetres right, front, up; tilted stacks are sheared."""
    planes = [frame.plane for frame in series.frames]
    if series.view is None or any(plane is None for plane in planes):
        raise CaseError(
            f"{path}: its images do not say where they lie (position, orientation, pixel spacing), "
            "so they are no volume"
        )
    first = planes[0]
    assert first is not None
    origins = np.array([plane.position for plane in planes if plane is not None])
    step = first.normal if len(origins) < 2 else (origins[-1] - origins[0]) / (len(origins) - 1)
    apart = float(np.linalg.norm(step))
    if apart < 1e-3:
        raise CaseError(f"{path}: its images lie at one place (several phases?): no volume")
    even = origins[0] + np.arange(len(origins))[:, None] * step
    off = np.linalg.norm(origins - even, axis=1)
    if off.max() > UNEVEN * apart:
        gaps = np.linalg.norm(np.diff(origins, axis=0), axis=1)
        usual = float(np.median(gaps))
        missing = int(np.count_nonzero(gaps > GAP * usual))
        same = int(np.count_nonzero(gaps < 1e-3))
        what = f"slices are missing in {missing} places" if missing else "slices lie unevenly"
        what = f"{same} slices lie where others lie already" if same else what
        index = int(np.argmax(np.abs(gaps - usual)))
        raise CaseError(
            f"{path}: {what}: between {series.frames[index].file!r} and "
            f"{series.frames[index + 1].file!r} are {gaps[index]:.4g} mm, else {usual:.4g} mm; "
            "complete the series, or resample it to even slices first"
        )
    return first.affine_along(step)


def _stored(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Frames, each rows x columns, as voxels in the order of columns, rows, slices."""
    return np.stack(planes, axis=-1).transpose(1, 0, 2)


def _truth_planes(
    truth: Path | None, label: str, series: Series, path: Path, left_out: dict[str, int]
) -> list[np.ndarray]:
    size = (series.facts["rows"], series.facts["columns"])
    if truth is None:
        return [np.zeros(size, bool) for _ in series.frames]
    planes: list[Any] = read_truth(truth, label, series, left_out)
    return planes
