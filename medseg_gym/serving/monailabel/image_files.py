"""Image files that clients send: named by their kind, checked by their header alone."""

from __future__ import annotations

import math
from pathlib import Path

from medseg_gym.cases.volumes import SUFFIXES, Volume, require, volume_suffix
from medseg_gym.errors import CaseError
from medseg_gym.serving.errors import ServiceError

KINDS = tuple(suffix for suffix in SUFFIXES if suffix not in (".nhdr", ".mhd"))
"""Endings of files whose header and voxels lie together."""

MEDIA_TYPES = {".nii.gz": "application/gzip"}
"""Media types of files by ending; all others are plain bytes."""


def media_type(path: Path) -> str:
    """Return the media type of a file."""
    return MEDIA_TYPES.get(volume_suffix(path.name), "application/octet-stream")


def kind_of(name: str | None) -> str:
    """Return the ending of a file's name that tells its kind.

    Raises:
        ServiceError: 415, another kind; DICOM, archives and MONAI Label's raw labels are named.
    """
    suffix = volume_suffix(name or "")
    if suffix in KINDS:
        return suffix
    shown = (name or "")[-60:]
    why = ""
    if shown.lower().endswith((".dcm", ".zip", ".tar", ".tar.gz")):
        why = "; DICOM series are not read here: let the client send the volume as NIfTI or NRRD"
    if shown.lower().endswith(".bin"):
        why = "; raw labels, which OHIF sends, have no grid of their own and are not read here"
    raise ServiceError(f"{shown!r} is none of {', '.join(KINDS)}{why}", 415)


def open_header(path: Path, shown: str, max_voxels: int) -> Volume:
    """Open an image file, reading its header alone.

    Args:
        path: The file.
        shown: Its name in messages, which hold no folder of this machine.
        max_voxels: Most that are taken.

    Raises:
        ServiceError: 422 where it cannot be read or has a fourth axis, 413 where it is too large.
    """
    require(volume_suffix(path.name), "nibabel", "SimpleITK")
    try:
        volume = Volume(path, name=shown)
    except CaseError as error:
        raise ServiceError(without_path(str(error), path, shown)) from error
    header = volume.header
    if header.channels > 1:
        raise ServiceError(
            f"{shown}: it has {header.channels} volumes along a fourth axis, or as many values per "
            "voxel; send one volume of grey values"
        )
    voxels = math.prod(int(n) for n in header.shape)
    if voxels > max_voxels:
        raise ServiceError(
            f"{shown}: it has {voxels} voxels, and {max_voxels} are taken; crop it, or resample it "
            "to larger voxels",
            413,
        )
    return volume


def without_path(message: str, path: Path, shown: str) -> str:
    """Replace the path of a file in a message by the name that the client knows."""
    for text in (str(path), path.name):
        message = message.replace(text, shown)
    return message.replace(str(path.parent), "its folder")
