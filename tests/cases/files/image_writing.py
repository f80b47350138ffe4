"""Picture files that Pillow does not write: PNG of 16 bits or few bits, with or without extras."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import tifffile

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    pixels: np.ndarray,
    depth: int = 16,
    extras: bytes = b"",
    late: bytes = b"",
    palette: bool = False,
) -> bytes:
    """A PNG of (H, W) or (H, W, C) samples; every row by another filter where bytes allow it.

    Args:
        pixels: Samples as they are to be stored.
        depth: Bits a sample: 1, 2, 4 (grey and palettes), 8 or 16.
        extras: Chunks before the pixels.
        late: Chunks after the pixels.
        palette: They are indices; a chunk PLTE must be among the extras.
    """
    height, width, *channels = pixels.shape
    count = channels[0] if channels else 1
    if depth < 8:
        bits = (pixels[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
        rows = [np.packbits(row).tobytes() for row in bits.reshape(height, -1).astype(np.uint8)]
    else:
        kind = ">u2" if depth == 16 else "u1"
        rows = [row.astype(kind).tobytes() for row in pixels]
    step = max(1, count * depth // 8)
    packed = b"".join(_filtered(rows, number, step) for number in range(height))
    colour = 3 if palette else _COLOUR_TYPES[count]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extras, chunk(b"IDAT", zlib.compress(packed)), late)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def _filtered(rows: list[bytes], number: int, step: int) -> bytes:
    """A row by no filter, by Sub or by Up, in turn."""
    row = np.frombuffer(rows[number], np.uint8)
    if number % 3 == 1:
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        return b"\x01" + (row - left).tobytes()
    if number % 3 == 2:
        return b"\x02" + (row - np.frombuffer(rows[number - 1], np.uint8)).tobytes()
    return b"\x00" + row.tobytes()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """A TIFF by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    """EXIF that holds an orientation alone, as its TIFF."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
