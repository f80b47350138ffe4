"""One image as a source of cases: "image:scan.png?truth=mask.png&target=liver"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseList
from medseg_gym.cases.image_files.images import SUFFIXES
from medseg_gym.cases.image_files.masks import CHANNELS, as_mask
from medseg_gym.cases.image_files.options import ImageOptions
from medseg_gym.errors import CaseError

if TYPE_CHECKING:
    from medseg_gym.cases.volumes import Window

DICOM_SUFFIXES = (".dcm", ".dicom")


def read_case(
    image: Path,
    target: str,
    mask: Path | None,
    modality: str,
    window: str | None,
    mask_channel: str = "auto",
    orientation: str = "shown",
) -> Case:
    """Make a case of files.

    Args:
        image: PNG, JPEG, TIFF, BMP, WebP, GIF, PNM, or one DICOM image (extra "data").
        target: What to segment, in words.
        mask: Truth, of the image's size, value > 0 is the target; None leaves an empty mask that
            must not be scored.
        modality: As in `Case`.
        window: As `medseg_gym.cases.volumes.parse_window` reads it, for images of more than 8
            bits; None takes a DICOM file's own.
        mask_channel: See `ImageFileOptions`.
        orientation: See `ImageFileOptions`.

    Raises:
        CaseError: A file that cannot be read, sizes that differ, or an option that cannot be used.
    """
    if mask_channel not in CHANNELS:
        raise CaseError(f"mask_channel={mask_channel!r}: use one of {', '.join(CHANNELS)}")
    if orientation not in ("shown", "stored"):
        raise CaseError(f"orientation={orientation!r}: use shown or stored")
    from medseg_gym.cases.volumes import parse_window  # which itself needs this package

    limits = parse_window(window, modality) if window else None
    decoding = ImageOptions(limits, mask_channel, orientation == "stored")
    pixels = _read_pixels(image, modality, window, decoding)
    height, width, _ = pixels.shape
    truth = np.zeros((height, width), bool)
    if mask is not None:
        truth = as_mask(decoding.labels(mask, str(mask)), str(mask))
        if truth.shape != (height, width):
            raise CaseError(
                f"{mask} is {truth.shape[1]} x {truth.shape[0]} pixels but {image} is "
                f"{width} x {height}; they must have the same size"
            )
    return Case(image.name, pixels, truth, target=target, modality=modality, source="file")


def _read_pixels(
    path: Path, modality: str, window: str | None, decoding: ImageOptions
) -> np.ndarray:
    if not path.is_file():
        raise CaseError(f"there is no file {path}")
    from medseg_gym.cases.volumes import parse_window

    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return decoding.image(path, str(path))
    if suffix in DICOM_SUFFIXES:
        return _read_dicom(path, modality, parse_window(window or "", modality, own=True))
    raise CaseError(
        f"{path}: unknown kind of image {path.suffix!r}; give one of "
        f"{', '.join((*SUFFIXES, *DICOM_SUFFIXES))}; or a scan: .nii, .nii.gz, .nrrd, .mha or a "
        "folder of DICOM"
    )


def _read_dicom(path: Path, modality: str, window: Window) -> np.ndarray:
    try:
        from medseg_gym.cases.dicom.facts import read_facts
        from medseg_gym.cases.dicom.images import read_rgb_frame
    except ImportError:
        raise CaseError(f'{path}: DICOM needs pip install "medseg-gym[data]"') from None
    facts = read_facts(path, str(path))
    if "frames" not in facts:
        raise CaseError(f"{path} is not a DICOM image")
    if facts["frames"] != 1:
        raise CaseError(f"{path} has {facts['frames']} frames; give a file of one image")
    return read_rgb_frame(path, str(path), 0, window, modality)


def load(
    argument: str,
    split: str,
    truth: str = "",
    target: str = "",
    modality: str = "",
    window: str = "",
    mask_channel: str = "auto",
    orientation: str = "shown",
) -> CaseList:
    """Open one image and its truth; every split holds it.

    Args:
        argument: The image, see `read_case`.
        split: Named in messages only.
        truth: Its mask.
        target: What to segment, in words; by default the name of the mask's file.
        modality: As in `Case`.
        window: See `read_case`.
        mask_channel: See `read_case`.
        orientation: See `read_case`.

    Raises:
        CaseError: No truth, or a file or an option that cannot be used.
    """
    if not argument or not truth:
        raise CaseError(
            f"image:{argument}: give the image and its truth, for example "
            "image:scan.png?truth=mask.png&target=liver; `medseg run` needs no truth"
        )
    image, mask = Path(argument).expanduser(), Path(truth).expanduser()
    if not mask.is_file():
        raise CaseError(f"image:{argument}: there is no file {mask}")
    options = (modality, window or None, mask_channel, orientation)
    case = read_case(image, target or mask.stem, mask, *options)
    return CaseList([case], name=f"image:{argument}", split=split)
