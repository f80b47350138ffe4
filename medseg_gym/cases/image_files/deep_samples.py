"""Samples of more than 8 bits that Pillow would cut to a byte: PNG, TIFF and PNM."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.raster import Raster

_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF", "F;64BF": "F;64NF"}
_CUT = tuple(f"{bands};16{order}" for bands in ("RGB", "RGBA", "RGBX") for order in "BLN")


def decoded(file: ImageFile.ImageFile) -> np.ndarray:
    """Return the pixels of a file, with Pillow's error where they cannot be decoded."""
    file.load()
    return np.asarray(file)


def keyed(values: np.ndarray, clear: Any) -> np.ndarray | None:
    """Return alpha, (H, W) uint8, of an image in which one value or colour is transparent.

    Args:
        values: (H, W) or (H, W, 3).
        clear: That value or colour; None where there is none.
    """
    if clear is None:
        return None
    same = values == np.asarray(clear)
    return np.where(same.all(axis=2) if values.ndim == 3 else same, 0, 255).astype(np.uint8)


def is_deep_png(file: ImageFile.ImageFile) -> bool:
    """Return whether a PNG has 16-bit samples that Pillow cuts; it keeps those of plain grey."""
    return any(_raw_mode(tile).endswith(";16B") for tile in file.tile) and file.mode in (
        *("RGB", "RGBA"),
        "LA",
    )


def read_png(file: ImageFile.ImageFile, source: Path | bytes) -> Raster:
    """Decode a PNG of 16-bit colour, with or without alpha, or grey with alpha.

    Args:
        file: As Pillow opened it.
        source: The same file, or its bytes.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    if _raw_mode(file.tile[0]).startswith("LA"):
        # Four bytes a pixel either way, and filters work on bytes: called RGBA of 8 bits, the
        # same data gives every byte.
        header = content[16:24] + b"\x08\x06" + content[26:29]
        check = struct.pack(">I", zlib.crc32(b"IHDR" + header))
        with Image.open(io.BytesIO(content[:16] + header + check + content[33:])) as four:
            pairs = np.ascontiguousarray(decoded(four)).view(">u2").astype(np.uint16)
        file.load()  # for what stands behind the pixels: EXIF
        return Raster(np.ascontiguousarray(pairs[:, :, 0]), pairs[:, :, 1])
    values = _both_bytes(file, content)
    if values.shape[2] == 4:
        return Raster(np.ascontiguousarray(values[:, :, :3]), values[:, :, 3])
    return Raster(values, keyed(values, file.info.get("transparency")))


def read_tiff(file: Any, source: Path | bytes) -> Raster | None:
    """Decode a TIFF of more than 8 bits a sample, or of signed or floating-point ones.

    Args:
        file: As Pillow opened it.
        source: The same file, or its bytes.

    Returns:
        None where Pillow cannot give the samples as they are.
    """
    tags = file.tag_v2
    inverted = tags.get(262) == 0
    if file.mode.startswith("I") or file.mode == "F":
        _name_native_bytes(file)
        values = decoded(file)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        unsigned = all(kind in (1, 4) for kind in np.ravel(tags.get(339, (1,))))
        if file.mode == "I" and unsigned and int(np.max(tags.get(258, (1,)))) == 32:
            values = values.view(np.uint32)  # Pillow has signed integers alone
        return Raster(values, white_is_zero=inverted)
    cut = all(_raw_mode(tile) in _CUT for tile in file.tile)
    if not cut or tags.get(284, 1) != 1:
        return None
    values = _both_bytes(file, source)
    alpha = values[:, :, 3] if file.mode == "RGBA" else None
    return Raster(np.ascontiguousarray(values[:, :, :3]), alpha)


def maximum_of_pnm(file: ImageFile.ImageFile) -> int:
    """Return the highest value that a PNM announces; 255 where a bit or byte is a pixel."""
    return next(
        (
            args[1]
            for *_, args in file.tile
            if isinstance(args, tuple) and len(args) == 2 and isinstance(args[1], int)
        ),
        255,
    )


def read_pnm(
    file: ImageFile.ImageFile, source: Path | bytes, maximum: int, name: str, place: str
) -> Raster:
    """Decode a PNM of two bytes a sample, which Pillow stretches to 16 bits or cuts to 8.

    Args:
        file: As Pillow opened it.
        source: The same file, or its bytes.
        maximum: From `maximum_of_pnm`.
        name: For the error.
        place: For the error.

    Raises:
        Damaged: Colours written as text, or the file ends early.
    """
    codec, _, offset, _ = file.tile[0]
    shape = (file.height, file.width, 3)[: 3 if file.mode == "RGB" else 2]
    if codec == "ppm_plain":
        if file.mode == "RGB":
            raise Damaged(name, "has colours of more than 8 bits as text; write it as PNG", place)
        stretched = decoded(file).astype(np.float64)
        return Raster(np.round(stretched * maximum / 65535).astype(np.uint16))
    content = source if isinstance(source, bytes) else source.read_bytes()
    count = int(np.prod(shape))
    if len(content) < offset + 2 * count:
        raise Damaged(name, "is truncated", place)
    values = np.frombuffer(content, ">u2", count, offset).reshape(shape)
    return Raster(values.astype(np.uint16))


def _both_bytes(file: Any, source: Path | bytes) -> np.ndarray:
    """Decode (H, W, C) uint16 of a file of which Pillow gives the high bytes.

    Decoded a second time, with the bytes of a sample named in the other order, it gives the low
    ones.
    """
    swapped = [_with(tile, _named(tile[3])) for tile in file.tile]
    high = decoded(file)
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as again:
        again.tile = swapped
        low = decoded(again)
    return np.asarray(high.astype(np.uint16) << 8 | low)


def _name_native_bytes(file: ImageFile.ImageFile) -> None:
    """Mend what Pillow takes compressed big-endian data for: libtiff gives it in native order."""
    file.tile = [
        _with(tile, (_NATIVE.get(tile[3][0], tile[3][0]), *tile[3][1:]))
        if tile[0] == "libtiff" and isinstance(tile[3], tuple)
        else tile
        for tile in file.tile
    ]


def _with(tile: Any, args: Any) -> Any:
    """Return a tile of Pillow with other decoder arguments; a plain tuple before Pillow 11."""
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)


def _named(args: Any) -> Any:
    if isinstance(args, str):
        return args[:-1] + _OTHER_BYTE[args[-1]]
    return (_named(args[0]), *args[1:])


def _raw_mode(tile: Any) -> str:
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) and args else args)


def raw_mode(file: ImageFile.ImageFile) -> str:
    """Return Pillow's name of the samples as stored; "" for a file that is decoded already."""
    return _raw_mode(file.tile[0]) if file.tile else ""
