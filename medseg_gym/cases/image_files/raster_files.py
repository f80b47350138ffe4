"""Decode an image file to its samples: any depth, colour table, alpha and orientation."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from medseg_gym.cases.files.access.guards import check_pixels, require_file
from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.cases.image_files.deep_samples import (
    decoded,
    is_deep_png,
    keyed,
    maximum_of_pnm,
    raw_mode,
    read_png,
    read_pnm,
    read_tiff,
)
from medseg_gym.cases.image_files.jpeg2000 import read_jpeg2000
from medseg_gym.cases.image_files.raster import Raster, turned_back

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".pgm", ".ppm", ".pbm", ".pnm", ".jp2", ".j2k"),
)
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")
_ORIENTATION = 0x0112


def read_raster(source: Path | bytes, name: str, place: str = "", stored: bool = False) -> Raster:
    """Decode an image file without interpreting its values.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.
        stored: Leave the pixels as they are stored, whatever orientation EXIF (or the TIFF tag)
            gives; by default they are turned as every viewer shows them.

    Raises:
        Damaged: It is no image, has several frames or too many pixels, or cannot be decoded.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place):
        file = _open(source, name, place)
        if file is None:
            return _from_tiff(source, name, place, stored)
        with file:
            if file.format == "TIFF" and _is_deep_tiff(file):
                return _deep_tiff(file, source, name, place, stored)
            # Pillow itself turns a TIFF while it decodes it, and forgets the tag.
            before = _orientation(file) if file.format == "TIFF" else 1
            raster = _samples(file, source, name, place)
            after = _orientation(file)
            if not stored:
                return raster.turned(after)
            return raster.turned(turned_back(before)) if before != after else raster


def read_image_size(source: Path | bytes, name: str, place: str = "") -> tuple[int, int]:
    """Read (H, W) from the header of an image file, not turned by EXIF.

    Raises:
        Damaged: It cannot be opened, has several frames, or announces too many pixels.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place):
        file = _open(source, name, place)
        if file is None:
            from medseg_gym.cases.image_files.deep_tiff import tiff_size

            return tiff_size(source, name, place)
        with file:
            return file.height, file.width


def _open(source: Path | bytes, name: str, place: str) -> ImageFile.ImageFile | None:
    """Open an image without decoding its pixels; None for a TIFF that Pillow does not know."""
    try:
        file = Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        )
    except UnidentifiedImageError as error:
        if _head(source, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        raise Damaged(name, f"is not an image ({', '.join(_FORMATS)})", place) from error
    try:
        check_pixels(file.height, file.width, name, place)
        if getattr(file, "is_animated", False):
            raise Damaged(name, "has several frames; write one image a file", place)
    except BaseException:
        file.close()
        raise
    return file


def _head(source: Path | bytes, count: int) -> bytes:
    if isinstance(source, bytes):
        return source[:count]
    with source.open("rb") as file:
        return file.read(count)


def _samples(file: ImageFile.ImageFile, source: Path | bytes, name: str, place: str) -> Raster:
    if file.format == "PNG" and is_deep_png(file):
        return read_png(file, source)
    if file.format == "PPM" and (maximum := maximum_of_pnm(file)) > 255:
        return read_pnm(file, source, maximum, name, place)
    if file.format == "JPEG2000":
        return read_jpeg2000(file, source, name, place)
    clear = _spread(file.info.get("transparency"), file)
    mode = file.mode
    if mode == "P":
        return _paletted(decoded(file), file, clear)
    if mode == "PA":
        both = decoded(file)
        return replace(_paletted(both[:, :, 0], file, None), alpha=both[:, :, 1])
    if mode in ("LA", "RGBA", "La", "RGBa"):
        both = np.asarray(file.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)))
        values = both[:, :, 0] if mode in ("LA", "La") else both[:, :, :3]
        return Raster(np.ascontiguousarray(values), both[:, :, -1])
    if mode in ("1", "L", "RGB") or mode.startswith("I") or mode == "F":
        values = np.asarray(file.convert("L")) if mode == "1" else decoded(file)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return Raster(values, keyed(values, clear))
    space = "" if mode == "RGBX" else mode
    return Raster(np.asarray(file.convert("RGB")), space=space)


def _spread(clear: Any, file: ImageFile.ImageFile) -> Any:
    """Convert a transparent grey of a PNG of few bits to the value that Pillow spreads it to."""
    if not isinstance(clear, int):
        return clear
    return clear * {"1": 255, "L;2": 85, "L;4": 17}.get(raw_mode(file), 1)


def _paletted(index: np.ndarray, file: Image.Image, clear: Any) -> Raster:
    """Decode a palette image; `clear` is a transparent index, or an opacity for each index."""
    table = np.zeros((256, 3), np.uint8)  # an index beyond the file's own table is black
    own = np.asarray(file.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    table[: len(own)] = own
    alpha = None
    if clear is not None:
        opacity = np.full(256, 255, np.uint8)
        if isinstance(clear, bytes):
            opacity[: len(clear[:256])] = np.frombuffer(clear[:256], np.uint8)
        else:
            opacity[int(clear)] = 0
        alpha = opacity[index]
    return Raster(index, alpha, table)


def _orientation(file: Image.Image) -> int:
    try:
        orientation = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing, and takes no pixel away
        return 1
    return orientation if isinstance(orientation, int) else 1


def _is_deep_tiff(file: Any) -> bool:
    bits, kinds = file.tag_v2.get(258, (1,)), file.tag_v2.get(339, (1,))
    unsigned = all(kind in (1, 4) for kind in np.ravel(kinds))
    return int(np.max(bits)) > 8 or not unsigned


def _deep_tiff(file: Any, source: Path | bytes, name: str, place: str, stored: bool) -> Raster:
    before = _orientation(file)
    raster = read_tiff(file, source)
    if raster is None:
        return _from_tiff(source, name, place, stored)
    done = before != _orientation(file)
    if stored == done:
        return raster.turned(turned_back(before) if stored else before)
    return raster


def _from_tiff(source: Path | bytes, name: str, place: str, stored: bool) -> Raster:
    from medseg_gym.cases.image_files.deep_tiff import read_with_tifffile

    raster, orientation = read_with_tifffile(source, name, place)
    return raster if stored else raster.turned(orientation)
