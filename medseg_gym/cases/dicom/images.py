"""Turn frames into images: rescaled, windowed, inverted and coloured as their headers ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import quiet
from medseg_gym.cases.dicom.frames import CACHE_BYTES, read_frame, read_frame_of_whole
from medseg_gym.cases.dicom.planes import frame_item
from medseg_gym.cases.files import Damaged, decoding, require_file
from medseg_gym.cases.volumes import CT_WINDOWS, Window, by_value, show
from medseg_gym.cases.volumes.windows import NothingToSee
from medseg_gym.errors import CaseError


def read_rgb_frame(
    path: Path, name: str, frame: int, window: Window, modality: str, whole: bool = False
) -> np.ndarray:
    """Read one frame as RGB, in the stored orientation.

    Grey values are rescaled (RescaleSlope and -Intercept, or a modality LUT), windowed, and turned
    over for MONOCHROME1. With `window` "file" the file's own window or VOI LUT is used, and where
    it has none, soft tissue for CT and else percentiles of the frame.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.
        frame: From 0.
        window: What becomes black and white.
        modality: As in `Case.modality`.
        whole: Read the whole file and keep it for its other frames, unless it is too large.

    Returns:
        (H, W, 3) uint8.

    Raises:
        Damaged: The frame cannot be decoded.
    """
    if whole and require_file(path, name) <= CACHE_BYTES:
        pixels, header = read_frame_of_whole(path, name, frame)
    else:
        pixels, header = read_frame(path, name, frame)
    place = f"frame {frame}"
    try:
        with quiet(), decoding(name, place):
            return _shown(pixels, header, frame, window, modality)
    except Damaged:
        raise
    except CaseError as error:
        raise Damaged(name, str(error), place) from error


def _shown(
    pixels: np.ndarray, header: Any, frame: int, window: Window, modality: str
) -> np.ndarray:
    photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        pixels = _through_palette(pixels, header)
    if pixels.ndim == 3:
        if (pixels == pixels[:1, :1]).all():
            raise NothingToSee("all pixels are the same: there is nothing to see")
        return _eight_bits(pixels, header)

    def percentiles(low: float, high: float) -> tuple[float, float]:
        return _percentiles(_rescaled(pixels, header, frame), low, high)

    def render(stored: np.ndarray) -> np.ndarray:
        values = _rescaled(stored, header, frame)
        shown = _windowed(values, header, frame, window, modality, percentiles)
        return 255 - shown if photometric == "MONOCHROME1" else shown

    return by_value(pixels, render)


def _rescaled(pixels: np.ndarray, header: Any, frame: int) -> np.ndarray:
    """Convert stored values to what they stand for; slope or intercept may be missing."""
    from pydicom.pixels import apply_modality_lut

    own = frame_item(header, frame, "PixelValueTransformationSequence")
    if own.get("ModalityLUTSequence"):
        return apply_modality_lut(pixels, own)
    slope, intercept = (
        _factor(own, *one) for one in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if "RescaleSlope" not in own and "RescaleIntercept" not in own:
        return pixels
    if slope == 0:
        raise CaseError("RescaleSlope is 0: all pixels would be the same")
    return pixels.astype(np.float64) * slope + intercept


def _factor(own: Any, keyword: str, missing: float) -> float:
    if keyword not in own:
        return missing
    value = own.get(keyword)
    if value in (None, ""):
        raise CaseError(f"{keyword} is empty")
    if not np.isfinite(float(value)):
        raise CaseError(f"{keyword} is {float(value)}")
    return float(value)


def _windowed(
    values: np.ndarray,
    header: Any,
    frame: int,
    window: Window,
    modality: str,
    percentiles: Callable[[float, float], tuple[float, float]],
) -> np.ndarray:
    if window.name != "file":
        low, high = window.limits(percentiles)
        return show(values, low, high)
    own = frame_item(header, frame, "FrameVOILUTSequence")
    windows = _windows(own)
    if windows:
        center, width = windows[min(window.number, len(windows) - 1)]
        return _through_window(values, center, width, own.get("VOILUTFunction"))
    if own.get("VOILUTSequence"):
        from pydicom.pixels import apply_voi

        levels = apply_voi(values.astype(np.int64), own, index=window.number)
        bits = int(own.VOILUTSequence[0].LUTDescriptor[2])
        return show(levels, 0, 2**bits - 1)
    if modality == "CT":
        return show(values, *CT_WINDOWS["soft"])
    low, high = Window("percentiles").limits(percentiles)
    return show(values, low, high)


def _through_window(values: np.ndarray, center: float, width: float, function: Any) -> np.ndarray:
    """Apply a window by DICOM PS3.3 C.11.2.1.2: LINEAR (default), LINEAR_EXACT and SIGMOID."""
    if function == "SIGMOID":
        levels = 1 / (1 + np.exp(-4 * (values - center) / width))
        return show(levels, 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return show(values, center - width / 2, center + width / 2)
    half = max(width - 1, 1e-6) / 2  # a width of 1 is a threshold
    return show(values, center - 0.5 - half, center - 0.5 + half)


def _percentiles(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    chosen = values[(values != 0) & np.isfinite(values)]
    if not chosen.size:
        return 0.0, 0.0
    limits = np.percentile(chosen, [low, high])
    return float(limits[0]), float(limits[1])


def _through_palette(pixels: np.ndarray, header: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(pixels, header)
    if colours.dtype == np.uint8:
        return colours
    # Tables of 16 bits may hold 8-bit levels: the descriptor is often wrong about it.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _eight_bits(pixels: np.ndarray, header: Any) -> np.ndarray:
    pixels = pixels[:, :, :3]
    bits = int(header.get("BitsStored", 8))
    if pixels.dtype != np.uint8:
        pixels = (pixels >> max(bits - 8, 0)).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _windows(own: Any) -> list[tuple[float, float]]:
    """Centres and widths of a file; those without a width show nothing and are left out."""
    centers, widths = (_numbers(own.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    return [(c, w) for c, w in zip(centers, widths, strict=False) if w > 0 and np.isfinite(c + w)]


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    many = value if hasattr(value, "__len__") and not isinstance(value, str) else [value]
    return [float(number) for number in many]
