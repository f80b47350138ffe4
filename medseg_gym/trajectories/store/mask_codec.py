"""Masks as bytes: rows of bits, deflated. Lossless."""

from __future__ import annotations

import math
import zlib

import numpy as np

from medseg_gym.trajectories.errors import TrajectoryError


def pack_mask(mask: np.ndarray) -> bytes:
    """Pack a (H, W) or (D, H, W) bool mask: `zlib.compress(numpy.packbits(mask))`."""
    return zlib.compress(np.packbits(mask).tobytes(), 6)


def unpack_mask(packed: bytes, *shape: int) -> np.ndarray:
    """Undo `pack_mask`; bool.

    Args:
        packed: The bytes.
        *shape: Height and width, or depth, height and width.

    Raises:
        TrajectoryError: The bytes are no packed mask of that size.
    """
    try:
        bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    except zlib.error as error:
        raise TrajectoryError(f"not a packed mask: {error}") from None
    count = math.prod(shape)
    if bits.size != -(-count // 8):
        sides = " x ".join(map(str, shape))
        raise TrajectoryError(f"a packed mask of {bits.size} bytes is not {sides}")
    return np.unpackbits(bits, count=count).view(bool).reshape(shape)
