"""Windows: which intensities become black and which white."""

from __future__ import annotations

import numpy as np

CT_WINDOW = (-1000.0, 400.0)  # Hounsfield units


def grey(pixels: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Window intensities to 0..255 uint8."""
    scaled = np.clip((pixels.astype(np.float64) - window[0]) / (window[1] - window[0]), 0, 1)
    return np.round(scaled * 255).astype(np.uint8)


def percentiles(pixels: np.ndarray) -> tuple[float, float]:
    """The window from the 0.5th to the 99.5th percentile."""
    low, high = np.percentile(pixels, [0.5, 99.5])
    return float(low), float(high)
