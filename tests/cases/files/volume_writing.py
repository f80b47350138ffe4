"""Volumes on disk for tests, cut from the chest CT that slicerio carries."""

from __future__ import annotations

from functools import cache
from importlib.metadata import files
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

SPACING = (3.0468759536743195, 3.0468759536743195, 10.0)  # left, back, up
LUNG = {"right lung": 5, "left lung": 6}


def packaged(package: str, tail: str) -> Path:
    """A file that an installed package carries, without importing the package."""
    return next(Path(f.locate()) for f in files(package) or () if str(f).endswith(tail))


@cache
def chest() -> tuple[np.ndarray, np.ndarray]:
    """CT int16 and labels uint8, (34, 128, 128), in slices, rows, columns of the axial view."""
    import nrrd

    image, header = nrrd.read(str(packaged("slicerio", "data/CTChest4.nrrd")))
    labels, _ = nrrd.read(str(packaged("slicerio", "data/Segmentation.seg.nrrd")))
    assert np.array_equal(np.sign(np.diag(header["space directions"])), [-1, -1, 1])
    views = [array[::-1, ::-1].transpose(2, 1, 0) for array in (image, labels)]
    return views[0].astype(np.int16), np.ascontiguousarray(views[1])


def piece(slices: slice = slice(14, 20), step: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A small part of the chest: some slices, every `step`-th row and column."""
    image, labels = chest()
    return image[slices, ::step, ::step].copy(), labels[slices, ::step, ::step].copy()


def save(
    path: Path,
    view: np.ndarray,
    codes: str = "LPS",
    spacing: tuple[float, float, float] = SPACING,
    origin: tuple[float, float, float] = (40.0, -30.0, 100.0),
) -> Path:
    """Write (slices, rows, columns) of the axial view as NIfTI with voxel axes along `codes`."""
    voxels = view.transpose(2, 1, 0)  # along left, back, up
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = origin
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored = apply_orientation(voxels, turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(
        np.ascontiguousarray(stored), affine @ inv_ornt_aff(turn, voxels.shape)
    )
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def save_pair(
    root: Path,
    case: str = "case_001",
    suffix: str = ".nii.gz",
    image: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> None:
    """imagesTr/CASE and labelsTr/CASE; by default the small piece of the chest with both lungs."""
    have, truth = piece()
    save(root / "imagesTr" / f"{case}{suffix}", have if image is None else image)
    save(root / "labelsTr" / f"{case}{suffix}", lungs(truth) if labels is None else labels)


def lungs(labels: np.ndarray) -> np.ndarray:
    """Right lung 1, left lung 2."""
    return ((labels == 5) + 2 * (labels == 6)).astype(np.uint8)


def write_patients(root: Path, count: int) -> None:
    """Write patients of eight slices with both lungs; the last one's axes run another way."""
    image, labels = piece(slice(4, 20, 2), 4)
    for patient in range(count):
        codes = "PIR" if patient == count - 1 else "LPS"
        moved = [np.roll(array, patient - 2, 2) for array in (image, lungs(labels))]
        for kind, array in zip(("imagesTr", "labelsTr"), moved, strict=True):
            save(root / kind / f"p{patient}.nii.gz", array, codes)
