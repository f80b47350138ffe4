"""Masks as text, so that a record and its mask are kept together or not at all."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from medseg_gym.cases.image_files.images import png_bytes


def pack_mask(mask: np.ndarray) -> str:
    """Return a mask as a PNG, 0 and 255, in base64.

    Args:
        mask: (H, W) bool.
    """
    return base64.b64encode(png_bytes(mask)).decode()


def unpack_mask(text: str) -> np.ndarray:
    """Return the mask that `pack_mask` packed, (H, W) bool."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image) > 0
