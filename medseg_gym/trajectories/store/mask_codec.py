"""Masks as bytes: rows of bits, deflated. Lossless."""

from __future__ import annotations

import zlib

import numpy as np

from medseg_gym.trajectories.errors import TrajectoryError


def pack_mask(mask: np.ndarray) -> bytes:
    """Pack a (H, W) bool mask: `zlib.compress(numpy.packbits(mask))`."""
    return zlib.compress(np.packbits(mask).tobytes(), 6)


def unpack_mask(packed: bytes, height: int, width: int) -> np.ndarray:
    """Undo `pack_mask`; (height, width) bool.

    Raises:
        TrajectoryError: The bytes are no packed mask of that size.
    """
    try:
        bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    except zlib.error as error:
        raise TrajectoryError(f"not a packed mask: {error}") from None
    if bits.size != -(-height * width // 8):
        raise TrajectoryError(f"a packed mask of {bits.size} bytes is not {height} x {width}")
    return np.unpackbits(bits, count=height * width).astype(bool).reshape(height, width)
