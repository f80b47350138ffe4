"""Small images, sound and broken, that the corpora of several formats are made of."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def image(seed: int = 0, height: int = 20, width: int = 24) -> np.ndarray:
    """(H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def mask(height: int = 20, width: int = 24) -> np.ndarray:
    """(H, W) uint8, 0 and 255."""
    drawn = np.zeros((height, width), np.uint8)
    drawn[4:12, 5:15] = 255
    return drawn


def encoded(pixels: np.ndarray | Image.Image, format: str = "PNG") -> bytes:
    """Bytes of an image file."""
    buffer = io.BytesIO()
    file = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file.save(buffer, format=format)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_bomb(side: int = 60_000) -> bytes:
    """A few kilobytes that announce `side` x `side` grey pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(4_000_000), 9)
    chunks = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_text_bomb() -> bytes:
    """A sound image with a compressed comment of 200 MB."""
    sound = encoded(image())
    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    at = 8 + 25  # behind signature and IHDR
    return sound[:at] + text + sound[at:]


def animated_gif() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(image(seed)).convert("P") for seed in range(3)]
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    """The bytes with one bit flipped; counted from the end where `at` is negative."""
    spoiled = bytearray(content)
    spoiled[at] ^= 0x10
    return bytes(spoiled)
