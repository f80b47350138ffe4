"""Options by which all image formats decode their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.image_files.images import HasLimits, read_image
from medseg_gym.cases.image_files.masks import CHANNELS, read_labels
from medseg_gym.errors import CaseError

IMAGE_OPTIONS = ("window", "mask_channel", "orientation")
"""Options of every format whose images and masks are image files."""


@dataclass(frozen=True)
class ImageOptions:
    """The options of `IMAGE_OPTIONS`, read."""

    window: HasLimits | None = None
    """Intensities shown black and white in images of more than 8 bits a sample; None refuses such
    images.
    """

    mask_channel: str = "auto"
    """Which channel of a mask file is the mask; see `masks.read_labels`."""

    stored: bool = False
    """Leave images and masks as they are stored, whatever orientation EXIF gives."""

    @classmethod
    def of(cls, spec: FileSpec) -> ImageOptions:
        """Read the options of a spec.

        Raises:
            CaseError: One cannot be used.
        """
        from medseg_gym.cases.volumes import parse_window  # which itself needs this package

        window = None
        if text := spec.text("window"):
            try:
                window = parse_window(text, "")
            except CaseError as error:
                numbers = "as LOW,HIGH give two numbers; LOW must be below HIGH"
                raise spec.wrong("window", f"{numbers} ({error})") from error
        channel = spec.text("mask_channel", "auto", CHANNELS)
        orientation = spec.text("orientation", "shown", ("shown", "stored"))
        return cls(window, channel, orientation == "stored")

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
