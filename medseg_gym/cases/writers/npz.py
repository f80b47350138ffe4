"""Volumes as .npz files in the challenge's form, which `npz:` reads back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg_gym.cases.npz.boxes import VolumeBox
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.errors import CaseError
from medseg_gym.storage.atomic_write import atomic_path


def write_npz(
    path: str | Path,
    image: np.ndarray,
    labels: np.ndarray,
    spacing: Sequence[float] | None = None,
    boxes: Sequence[VolumeBox] | None = None,
    synthetic: bool = False,
) -> None:
    """Write an image and its labels, whole or not at all.

    Args:
        path: Of the file; its name must end in .npz.
        image: (D, H, W), (D, H, W, 3), or one slice of either, uint8.
        labels: (D, H, W) or (H, W) whole numbers, 0 is background.
        spacing: Millimetres between slices, rows and columns, stored in this order.
        boxes: One per class in ascending order of the labels, stored as dicts; numpy pickles them,
            as it does in the challenge's own files.
        synthetic: Mark a made-up volume as such, in an array of that name.

    Raises:
        CaseError: Arrays or numbers that `npz:` would not read back.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise CaseError(f"{path}: the name of such a file must end in .npz")
    image, labels = np.asarray(image), np.asarray(labels)
    if image.dtype != np.uint8 or labels.dtype.kind not in "biu":
        raise CaseError(
            f"{path}: the image must be uint8 and the labels whole numbers, got {image.dtype} and "
            f"{labels.dtype}"
        )
    if image.shape not in (labels.shape, (*labels.shape, 3)) or labels.ndim not in (2, 3):
        raise CaseError(f"{path}: the image is {image.shape} but the labels are {labels.shape}")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= 65_535:
        raise CaseError(f"{path}: labels must lie in 0..65535")
    arrays = {"imgs": image, "gts": _narrow(labels)}
    if spacing is not None:
        numbers = [float(one) for one in spacing]
        if len(numbers) != labels.ndim or not all(0 < one < math.inf for one in numbers):
            raise CaseError(
                f"{path}: spacing must be {labels.ndim} positive numbers, got {numbers}"
            )
        arrays["spacing"] = np.array(numbers)
    if boxes is not None:
        classes = np.unique(labels[labels > 0]).size
        if len(boxes) != classes:
            raise CaseError(f"{path}: {len(boxes)} boxes for {classes} classes")
        arrays["boxes"] = np.array([box.as_dict() for box in boxes], object)
    if synthetic:
        arrays["synthetic"] = np.array(True)
    with atomic_path(path, CaseError) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's hints are narrower


def write_npz_volumes(path: str | Path, cases: Sequence[VolumeCase]) -> None:
    """Write the targets of one volume; the n-th case becomes label n.

    Args:
        path: See `write_npz`.
        cases: Cases of the same voxels and spacing, whose masks do not overlap.

    Raises:
        CaseError: None, other voxels, an overlap, or an unknown truth.
    """
    if not cases:
        raise CaseError(f"{path}: no case is to be written")
    first = cases[0]
    labels = np.zeros(first.mask.shape, np.uint16)
    for number, case in enumerate(cases, start=1):
        if not case.truth_known:
            raise CaseError(f"{path}: nobody knows the truth of case {case.key!r}")
        same = case.spacing == first.spacing and case.content_hash == first.content_hash
        if case.mask.shape != labels.shape or not same:
            raise CaseError(f"{path}: case {case.key!r} is of another volume than {first.key!r}")
        if (labels[case.mask] > 0).any():
            raise CaseError(
                f"{path}: the mask of case {case.key!r} overlaps another; a voxel has one label"
            )
        labels[case.mask] = number
    write_npz(path, first.image, labels, first.spacing, synthetic=first.synthetic)


def _narrow(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.uint8 if not labels.size or labels.max() <= 255 else np.uint16)
