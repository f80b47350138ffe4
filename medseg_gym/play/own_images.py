"""Images that people bring: pictures, single DICOM images, and slices of volume files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medseg_gym.cases import Case
from medseg_gym.cases.dicom.facts import read_facts
from medseg_gym.cases.dicom.images import read_rgb_frame
from medseg_gym.cases.dicom.records import MODALITIES
from medseg_gym.cases.unlabelled import make_unlabelled
from medseg_gym.cases.volumes import Volume, parse_window, require
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.errors import CaseError
from medseg_gym.play.stores.damage import without_folders
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import read_upload

NAME = "the file"
"""Name of a file in errors: its own is not kept."""

_VOLUME_BEGINS = {
    b"\x1f\x8b": ".nii.gz",
    (348).to_bytes(4, "little"): ".nii",
    (348).to_bytes(4, "big"): ".nii",
    (540).to_bytes(4, "little"): ".nii",
    (540).to_bytes(4, "big"): ".nii",
    b"NRRD": ".nrrd",
    b"ObjectType": ".mha",
}


@dataclass(frozen=True)
class ImageOptions:
    """Ways to read a file.

    Args:
        target: What to segment, in words.
        modality: CT, MRI, ... or "", which takes a DICOM file's own.
        window: Intensities shown black and white where they are not 8 bits yet, as
            `medseg_gym.cases.volumes.parse_window` reads it; "" takes percentiles, or the window
            of a DICOM file.
        slice: Which slice of a volume or frame, as people count, from 1; "" is the middle one.
    """

    target: str
    modality: str = ""
    window: str = ""
    slice: str = ""


def read_own(content: bytes, allowance: Allowance, options: ImageOptions, voxels: int) -> Case:
    """Make a case without a ground truth from an uploaded file.

    Args:
        content: Bytes of a picture, a DICOM image, or a NIfTI, NRRD or MetaImage volume.
        allowance: Pixels that the request may hold.
        options: How it is read.
        voxels: Voxels that a volume may have.

    Raises:
        ServiceError: The image is too large.
        CaseError: It cannot be decoded, or there is no such slice or window.
    """
    suffix = _volume_suffix(content)
    is_dicom = content[128:132] == b"DICM"
    modality = options.modality
    if not suffix and not is_dicom:
        window = options.window or "percentiles"
        pixels = read_upload(content, allowance, window=window, modality=modality)
        return make_unlabelled(pixels, options.target, modality)
    with TemporaryDirectory(prefix="medseg-image-") as folder:
        path = Path(folder) / f"image{'.dcm' if is_dicom else suffix}"
        path.write_bytes(content)
        try:
            if is_dicom:
                pixels, modality = _dicom_frame(path, allowance, options)
            else:
                pixels = _volume_slice(path, allowance, options, voxels)
        except CaseError as error:
            text = without_folders(str(error), [path.parent]).replace(path.name, NAME)
            raise CaseError(text) from error
    return make_unlabelled(pixels, options.target, modality)


def _volume_suffix(content: bytes) -> str:
    return next((end for begin, end in _VOLUME_BEGINS.items() if content.startswith(begin)), "")


def _dicom_frame(path: Path, allowance: Allowance, options: ImageOptions) -> tuple[np.ndarray, str]:
    require("dicom", "pydicom", "nibabel")
    facts = read_facts(path, NAME)
    if facts["kind"] != "image":
        raise CaseError(f"{NAME} is DICOM but no image")
    allowance.take(facts["rows"], facts["columns"], NAME)
    modality = options.modality or MODALITIES.get(facts["modality"], "")
    frame = _chosen(options.slice, facts["frames"])
    window = parse_window(options.window, modality, own=True)
    return read_rgb_frame(path, NAME, frame, window, modality), modality


def _volume_slice(
    path: Path, allowance: Allowance, options: ImageOptions, voxels: int
) -> np.ndarray:
    require(path.suffix, "nibabel")
    count = math.prod(int(side) for side in Volume(path).header.shape)
    if count > voxels:
        raise ServiceError(
            f"the volume has {count} voxels, and {voxels} are taken; send the slice alone", 413
        )
    case = read_volume_file(path, options.target, None, options.modality, options.window)
    index = _chosen(options.slice, case.depth)
    allowance.take(case.height, case.width, NAME)
    return np.ascontiguousarray(case.rgb(index))


def _chosen(text: str, count: int) -> int:
    """Return the index of a slice that people number from 1; "" is the middle one.

    Raises:
        CaseError: There is no such slice.
    """
    if not text:
        return count // 2
    if not text.isdecimal() or not 1 <= int(text) <= count:
        raise CaseError(f"slice {text!r} is none of {NAME}: it has slices 1 to {count}")
    return int(text) - 1
