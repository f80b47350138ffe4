"""Convert scanner intensities to the RGB bytes that a Case holds."""

from __future__ import annotations

import numpy as np

from medseg_gym.errors import CaseError


def window_to_rgb(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map intensities linearly from [low, high] to 0..255 and repeat over three channels.

    Args:
        pixels: (H, W) array of any real dtype.
        low: Intensity shown black; for CT in Hounsfield units.
        high: Intensity shown white, greater than `low`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        CaseError: Non-finite pixels, a wrong shape, or an empty window.

    Example:
        >>> import numpy as np
        >>> from medseg_gym.cases import window_to_rgb
        >>> window_to_rgb(np.array([[-1000, 40, 400]]), low=-160, high=240)[0, :, 0]
        array([  0, 128, 255], dtype=uint8)
    """
    pixels = np.asarray(pixels)
    if pixels.ndim != 2:
        raise CaseError(f"window_to_rgb takes an (H, W) array, got shape {pixels.shape}")
    return np.repeat(window_values(pixels, low, high)[:, :, None], 3, axis=2)


def window_values(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map intensities linearly from [low, high] to 0..255, each channel by itself.

    Args:
        values: Of any shape and any real dtype.
        low: Intensity shown black.
        high: Intensity shown white, greater than `low`.

    Returns:
        uint8, of the same shape.

    Raises:
        CaseError: Non-finite values, or an empty window.
    """
    if not (-np.inf < low < high < np.inf and float(high) - float(low) < np.inf):
        raise CaseError(f"intensity window must be finite with low < high, got ({low}, {high})")
    scaled = (values.astype(np.float64) - low) / (high - low)
    if not np.isfinite(scaled).all():
        raise CaseError(
            "image has NaN or infinite pixels; replace them (numpy.nan_to_num) or drop the slice"
        )
    return np.round(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
