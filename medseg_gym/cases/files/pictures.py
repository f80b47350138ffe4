"""PNG, JPEG, TIFF and the like as RGB images and as masks, with Pillow."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.cases.files.guards import check_pixels, require_file
from medseg_gym.cases.windowing import window_to_rgb
from medseg_gym.errors import CaseError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def picture_size(path: Path, name: str) -> tuple[int, int]:
    """(H, W) from the header of a picture.

    Raises:
        Damaged: It cannot be opened, has several frames, or announces too many pixels.
    """
    require_file(path, name)
    with decoding(name), _open(path, name) as file:
        return file.height, file.width


def read_image(
    source: Path | bytes, name: str, place: str = "", window: tuple[float, float] | None = None
) -> np.ndarray:
    """Decode an image.

    Grey is repeated over three channels, palettes are resolved, a fully opaque alpha channel is
    dropped. Sixteen-bit grey is a scanner's intensity, and choosing its window is not for here.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.
        window: Intensities shown black and white where a pixel has more than 8 bits; None refuses
            such files.

    Returns:
        (H, W, 3) uint8, read-only.

    Raises:
        Damaged: It cannot be decoded, is transparent, or has more than 8 bits a channel.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place), _open(source, name, place) as file:
        deep = file.mode in _SIXTEEN_BIT or file.mode in ("I", "F")
        if deep and window is not None:
            pixels = _windowed(np.asarray(file), window, name, place)
        elif deep:
            raise Damaged(
                name,
                f"has more than 8 bits a pixel (mode {file.mode}) and no intensity window is given",
                place,
            )
        elif "A" in file.getbands() or "transparency" in file.info:
            rgba = file.convert("RGBA")
            if np.asarray(rgba.getchannel("A")).min() < 255:
                raise Damaged(
                    name, "has transparent pixels, whose colour is undefined; flatten it", place
                )
            pixels = np.asarray(rgba.convert("RGB"))
        else:
            pixels = np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
    pixels.flags.writeable = False
    return pixels


def _windowed(values: np.ndarray, window: tuple[float, float], name: str, place: str) -> np.ndarray:
    try:
        return window_to_rgb(values, *window)
    except CaseError as error:
        raise Damaged(name, str(error), place) from error


def read_labels(source: Path | bytes, name: str, place: str = "") -> np.ndarray:
    """Decode a mask file without interpreting it.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.

    Returns:
        (H, W) for grey, index and one-bit files (palette files give their indices, one-bit files
        0 and 255), (H, W, 3) uint8 for colour; an alpha channel is dropped.

    Raises:
        Damaged: It cannot be decoded, or holds floating-point or YCbCr values.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place), _open(source, name, place) as file:
        if file.mode == "1":
            return np.asarray(file.convert("L"))
        if file.mode in ("L", "P", "I", "RGB", *_SIXTEEN_BIT):
            return np.asarray(file)
        if file.mode in ("LA", "PA"):
            return np.asarray(file)[:, :, 0]
        if file.mode in ("RGBA", "RGBX"):
            return np.asarray(file)[:, :, :3]
        raise Damaged(
            name, f"is no mask: mode {file.mode} ({_MEANING.get(file.mode, 'unknown')})", place
        )


_MEANING = {"F": "floating point", "YCbCr": "YCbCr colour", "CMYK": "print colour", "LAB": "LAB"}


def as_mask(labels: np.ndarray, name: str, place: str = "") -> np.ndarray:
    """Foreground of a binary mask file: value > 0; a colour file must be grey in colour's clothes.

    Raises:
        Damaged: A colour file whose channels differ.
    """
    if labels.ndim == 3:
        if not (labels == labels[:, :, :1]).all():
            raise Damaged(name, "is a colour picture, not a binary mask", place)
        labels = labels[:, :, 0]
    return labels > 0


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 or (H, W) bool as PNG; a mask becomes 0/255 grey."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _open(source: Path | bytes, name: str, place: str = "") -> Image.Image:
    try:
        file = Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        )
    except UnidentifiedImageError as error:
        raise Damaged(name, f"is not a picture ({', '.join(_FORMATS)})", place) from error
    try:
        check_pixels(file.height, file.width, name, place)
        if getattr(file, "is_animated", False):
            raise Damaged(name, "has several frames; write one picture a file", place)
    except BaseException:
        file.close()
        raise
    return file
