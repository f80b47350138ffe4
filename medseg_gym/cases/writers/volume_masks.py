"""Masks of volumes written back onto the grid of their scan: NIfTI, DICOM SEG, PNG."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.volumes.geometry import VolumeGeometry
from medseg_gym.errors import CaseError
from medseg_gym.storage.atomic_write import atomic_write

IDENTIFIERS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyID"),
)
"""Elements that tell who the patient is and that a segmentation must have: they are left empty."""

_REMOVED = ("StudyDescription", "ContributingEquipmentSequence")
_REMOVED_GROUPS = (0x0010, 0x0012)  # the patient, and the trial the patient is in


def write_nifti_mask(path: Path, mask: np.ndarray, geometry: VolumeGeometry) -> None:
    """Write a mask as NIfTI with the scan's own voxel order, affine and header codes.

    Args:
        path: Of the file, .nii or .nii.gz; written at once or not at all.
        mask: (D, H, W) bool, as the volume is shown.
        geometry: Grid of the scan.

    Raises:
        CaseError: A mask of another shape, or nibabel is not installed.
    """
    import nibabel

    image = nibabel.Nifti1Image(geometry.stored(mask).astype(np.uint8), geometry.affine)
    codes = (1, 1)  # scanner coordinates, as DICOM, NRRD and MetaImage have them
    if geometry.path is not None and geometry.path.name.endswith((".nii", ".nii.gz")):
        header: Any = nibabel.load(geometry.path).header
        codes = (int(header["qform_code"]), int(header["sform_code"]))
        image.header.set_xyzt_units(header.get_xyzt_units()[0] or "mm")
    else:
        image.header.set_xyzt_units("mm")
    # A header without any code keeps its affine in neither form; readers then guess.
    qform, sform = codes if any(codes) else (1, 1)
    if geometry.tilt:  # a tilted stack: the qform cannot say it
        qform, sform = 0, sform or 1
    image.set_sform(geometry.affine, sform)
    image.set_qform(None if geometry.tilt else geometry.affine, qform)
    whole = image.to_bytes()
    if path.name.endswith(".gz"):
        whole = gzip.compress(whole, 6, mtime=0)  # the same mask gives the same bytes
    atomic_write(path, whole)


def write_segmentation(
    path: Path,
    mask: np.ndarray,
    geometry: VolumeGeometry,
    target: str,
    keep_identifiers: bool = False,
) -> None:
    """Write a mask as a binary DICOM SEG that refers to the images of its series.

    Args:
        path: Of the file; written at once or not at all.
        mask: (D, H, W) bool, as the volume is shown; not empty.
        geometry: Grid of a DICOM series.
        target: Label of the segment.
        keep_identifiers: Keep what highdicom copies out of the images about patient, study and
            scanner; otherwise names, numbers, birth date, texts and serial numbers are left out.
            UIDs and the date of the study, which tie the mask to its images, stay.

    Raises:
        CaseError: The volume was not read from DICOM, the mask is empty or of another shape, or
            highdicom is not installed.
    """
    if geometry.path is None or not geometry.frames:
        raise CaseError(
            "a DICOM SEG refers to the images of a DICOM series, and this volume comes from "
            f"{geometry.path or 'no file'}; write it as NIfTI"
        )
    if not mask.any():
        raise CaseError("the mask is empty: a DICOM SEG needs at least one frame with a pixel")
    stored = geometry.stored(mask).transpose(2, 1, 0)  # frames, rows, columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about elements of the images that are not to the letter
        data = _segmentation(stored, geometry, target)
    if not keep_identifiers:
        _remove_identifiers(data)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    atomic_write(path, buffer.getvalue())


def write_slices(folder: Path, mask: np.ndarray) -> None:
    """Write every slice as a PNG, 0 and 255, called slice_000.png and so on.

    Args:
        folder: Made if it is not there.
        mask: (D, H, W) bool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, plane in enumerate(mask):
        atomic_write(folder / f"slice_{index:03d}.png", png_bytes(plane))


def _segmentation(stored: np.ndarray, geometry: VolumeGeometry, target: str) -> Any:
    import highdicom
    from pydicom import dcmread
    from pydicom.sr.codedict import codes

    assert geometry.path is not None
    files = list(dict.fromkeys(name for name, _ in geometry.frames))
    images = [dcmread(geometry.path / name if name else geometry.path) for name in files]
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=target[:64],
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.Tissue,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            "medseg_gym", codes.DCM.ArtificialIntelligence, _version()
        ),
    )
    ordered = _in_order(stored, geometry, files)
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=ordered.astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=highdicom.UID(),
        series_number=int(getattr(images[0], "SeriesNumber", None) or 0) + 1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medseg_gym",
        manufacturer_model_name="medseg_gym",
        software_versions=_version(),
        device_serial_number="0",
        series_description=f"{target[:50]} (medseg_gym)",
    )


def _remove_identifiers(data: Any) -> None:
    for name in _REMOVED:
        if name in data:
            delattr(data, name)
    for element in list(data):
        if element.keyword in IDENTIFIERS:
            element.value = ""
        elif element.tag.group in _REMOVED_GROUPS or element.VR == "PN":
            del data[element.tag]


def _in_order(stored: np.ndarray, geometry: VolumeGeometry, files: Sequence[str]) -> np.ndarray:
    """Planes in the order of the source frames: file by file, frame by frame."""
    places = [(files.index(name), number) for name, number in geometry.frames]
    return stored[sorted(range(len(places)), key=places.__getitem__)]


def _version() -> str:
    import medseg_gym

    return medseg_gym.__version__
