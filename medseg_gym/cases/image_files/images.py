"""Image files as the RGB images of cases, and images as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.raster import Raster
from medseg_gym.cases.image_files.raster_files import SUFFIXES, read_image_size, read_raster
from medseg_gym.cases.windowing import window_values
from medseg_gym.errors import CaseError

__all__ = ["SUFFIXES", "png_bytes", "read_image", "read_image_size"]


_ROWS = 64  # windowed at once


class HasLimits(Protocol):
    """Protocol of a `medseg_gym.cases.volumes.Window`."""

    def limits(self, percentiles: Callable[[float, float], tuple[float, float]]) -> tuple:
        """(low, high), asking `percentiles(low, high)` where they depend on the data."""


def read_image(
    source: Path | bytes,
    name: str,
    place: str = "",
    window: HasLimits | None = None,
    stored: bool = False,
) -> np.ndarray:
    """Decode an image.

    Grey is repeated over three channels, palettes are resolved, a fully opaque alpha channel is
    dropped, and the image is turned as EXIF says that it is shown. Samples of more than 8 bits are
    a scanner's intensities: the window is applied to each channel, and choosing one is not for
    here.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.
        window: Intensities shown black and white where a sample has more than 8 bits, from
            `medseg_gym.cases.volumes.parse_window`; percentiles are those of the image's samples
            that are not zero. None refuses such files.
        stored: See `read_raster`.

    Returns:
        (H, W, 3) uint8, read-only.

    Raises:
        Damaged: It cannot be decoded, is transparent, or has more than 8 bits a sample and no
            window is given.
    """
    raster = read_raster(source, name, place, stored)
    if raster.alpha is not None and raster.alpha.min() < raster.opaque:
        raise Damaged(name, "has transparent pixels, whose colour is undefined; flatten it", place)
    pixels = _windowed(raster, window, name, place) if raster.deep else raster.colours
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    pixels.flags.writeable = False
    return pixels


def _windowed(raster: Raster, window: HasLimits | None, name: str, place: str) -> np.ndarray:
    values = raster.values
    if window is None:
        finite = values[np.isfinite(values)]
        span = f", from {finite.min():g} to {finite.max():g}" if finite.size else ""
        raise Damaged(
            name,
            f"has more than 8 bits a sample ({values.dtype.name}{span}) and no "
            "intensity window is given; add window=LOW,HIGH, the intensities shown black and white",
            place,
        )

    def percentiles(low: float, high: float) -> tuple[float, float]:
        seen = values[values != 0]
        first, last = np.percentile(seen if seen.size else values, [low, high])
        return float(first), float(last) if last > first else float(first) + 1.0

    try:
        if not np.isfinite(values).all():
            window_values(values, 0.0, 1.0)  # says so, where percentiles would not
        low, high = window.limits(percentiles)
        shown = np.empty(values.shape, np.uint8)
        for row in range(0, len(values), _ROWS):  # floating point takes eight times the memory
            shown[row : row + _ROWS] = window_values(values[row : row + _ROWS], low, high)
    except CaseError as error:
        raise Damaged(name, str(error), place) from error
    return 255 - shown if raster.white_is_zero else shown


def png_bytes(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 or (H, W) bool as PNG; a mask becomes 0/255 grey."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()
