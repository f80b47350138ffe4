"""Masks as text, so that a record and its mask are kept together or not at all."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.errors import MedSegError


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


def pack_volume(mask: np.ndarray) -> str:
    """Return the mask of a volume as compressed bits in base64.

    Args:
        mask: (D, H, W) bool.
    """
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 6)).decode()


def unpack_volume(text: str, shape: Sequence[int]) -> np.ndarray:
    """Return the mask that `pack_volume` packed, (D, H, W) bool.

    Args:
        text: From `pack_volume`.
        shape: Of the mask.

    Raises:
        MedSegError: The mask has another size.
    """
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    voxels = int(np.prod(shape))
    if bits.size != -(-voxels // 8):
        raise MedSegError(f"a stored mask of {8 * bits.size} voxels does not fit {tuple(shape)}")
    return np.unpackbits(bits, count=voxels).view(bool).reshape(shape)
