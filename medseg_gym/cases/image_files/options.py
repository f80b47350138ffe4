"""Options by which all image formats decode their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from medseg_gym.cases.files.spec import FileOptions, FileSpec
from medseg_gym.cases.image_files.images import HasLimits, read_image
from medseg_gym.cases.image_files.masks import read_labels
from medseg_gym.errors import CaseError


@dataclass(frozen=True, kw_only=True)
class ImageFileOptions(FileOptions):
    """Options of every format whose images and masks are image files."""

    topic: ClassVar[str] = "Image files"

    window: str = ""
    """LOW,HIGH: intensities shown black and white in images of more than 8 bits a sample, which are
    refused without it; see `medseg_gym.cases.volumes.parse_window`."""

    mask_channel: Literal["auto", "alpha", "colour", "color", "index"] = "auto"
    """Channel of a mask file that is the mask; see `image_files.masks.read_labels`."""

    orientation: Literal["shown", "stored"] = "shown"
    """"shown" turns images and masks as their EXIF orientation says, "stored" leaves them."""


@dataclass(frozen=True)
class ImageOptions:
    """Settings of decoding images and masks."""

    window: HasLimits | None = None
    """Intensities shown black and white in images of more than 8 bits a sample; None refuses such
    images.
    """

    mask_channel: str = "auto"
    """Channel of a mask file that is the mask; see `masks.read_labels`."""

    stored: bool = False
    """Leave images and masks as they are stored, whatever orientation EXIF gives."""

    @classmethod
    def of(cls, spec: FileSpec) -> ImageOptions:
        """Read the options of a spec.

        Raises:
            CaseError: One cannot be used.
        """
        from medseg_gym.cases.volumes import parse_window  # which itself needs this package

        given = spec.read(ImageFileOptions)
        window = None
        if given.window:
            try:
                window = parse_window(given.window, "")
            except CaseError as error:
                numbers = "as LOW,HIGH give two numbers; LOW must be below HIGH"
                raise spec.wrong("window", f"{numbers} ({error})") from error
        return cls(window, given.mask_channel, given.orientation == "stored")

    def image(self, source: Path | bytes, name: str, place: str = "") -> np.ndarray:
        """Decode an image; see `read_image`.

        Raises:
            Damaged: It cannot be used.
        """
        return read_image(source, name, place, self.window, self.stored)

    def labels(
        self, source: Path | bytes, name: str, place: str = "", kind: str = "binary"
    ) -> np.ndarray:
        """Decode a mask; see `read_labels`.

        Raises:
            Damaged: It cannot be used.
        """
        return read_labels(source, name, place, kind, self.mask_channel, self.stored)
