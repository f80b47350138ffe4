"""Intensity windows, black to white: presets by modality, percentiles, numbers.

The CT presets are the level and width that radiology teaches for each tissue, as (low, high) in
Hounsfield units; "wide" is the one of the packaged samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medseg_gym.cases.windowing import window_to_rgb
from medseg_gym.errors import CaseError

CT_WINDOWS = {
    "soft": (-160.0, 240.0),  # level 40, width 400
    "lung": (-1350.0, 150.0),  # level -600, width 1500
    "bone": (-500.0, 1300.0),  # level 400, width 1800
    "brain": (0.0, 80.0),  # level 40, width 80
    "mediastinum": (-125.0, 225.0),  # level 50, width 350
    "liver": (-45.0, 105.0),  # level 30, width 150
    "wide": (-1000.0, 400.0),
}
PERCENTILES = (0.5, 99.5)
CHOICES = (*CT_WINDOWS, "percentiles", "LOW,HIGH")


@dataclass(frozen=True)
class Window:
    """A way to find the intensities shown black and white.

    Args:
        name: A key of `CT_WINDOWS`, "percentiles" (of the voxels that are not zero), "numbers", or
            "file" (the data's own, as DICOM has it).
        low: Intensity shown black; NaN for "percentiles" and "file".
        high: Intensity shown white.
        number: Which of the data's own windows, from 0.
    """

    name: str
    low: float = float("nan")
    high: float = float("nan")
    number: int = 0

    def limits(self, percentiles: Callable[[float, float], tuple[float, float]]) -> tuple:
        """(low, high), asking `percentiles(low, high)` where they depend on the data."""
        if self.name in ("percentiles", "file"):
            return percentiles(*PERCENTILES)
        return self.low, self.high


def parse_window(text: str, modality: str, own: bool = False) -> Window:
    """Read the option `window`.

    Args:
        text: A preset, "percentiles", "LOW,HIGH", "file" or "file:2" (its second) where the data
            can hold windows of its own, or "" for the usual: the data's own where it can have
            them, else soft tissue for CT and percentiles for all others.
        modality: As in `Case.modality`.
        own: The data can hold windows of its own.

    Raises:
        CaseError: None of these.
    """
    if not text:
        text = "file" if own else "soft" if modality == "CT" else "percentiles"
    if text == "percentiles":
        return Window(text)
    if text in CT_WINDOWS:
        return Window(text, *CT_WINDOWS[text])
    name, _, number = text.partition(":")
    if own and name == "file" and (not number or (number.isdigit() and int(number) > 0)):
        return Window("file", number=int(number or 1) - 1)
    try:
        low, high = (float(limit) for limit in text.split(","))
        if not (-np.inf < low < high < np.inf and high - low < np.inf):
            raise ValueError
    except ValueError:
        choices = (*CHOICES, "file", "file:2") if own else CHOICES
        raise CaseError(f"window={text!r}: use one of {', '.join(choices)}") from None
    return Window("numbers", low, high)


class NothingToSee(CaseError):
    """All pixels are the same."""


def show(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    """Show a slice as RGB.

    Args:
        plane: (H, W), any real type.
        low: Intensity shown black.
        high: Intensity shown white.

    Returns:
        (H, W, 3) uint8.

    Raises:
        CaseError: NaN or infinite pixels, or all pixels the same.
    """
    if np.issubdtype(plane.dtype, np.floating) and not (finite := np.isfinite(plane)).all():
        raise CaseError(
            f"{int(np.count_nonzero(~finite))} of {plane.size} pixels are NaN or infinite; "
            "replace them in the file (numpy.nan_to_num)"
        )
    if (plane == plane.flat[0]).all():
        raise NothingToSee(f"all pixels are {plane.flat[0]:g}: there is nothing to see")
    top = high if high > low else low + 1.0
    return by_value(plane, lambda values: window_to_rgb(values, low, top))


def by_value(plane: np.ndarray, render: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return `render(plane)`, computed once per value instead of once per pixel.

    Args:
        plane: (H, W), any real type; the detour pays, and is taken, for whole numbers.
        render: Turns (H, W) values into (H, W, 3) uint8 with equal channels, each pixel alone.

    Returns:
        (H, W, 3) uint8.
    """
    if plane.dtype.kind not in "iu":
        return render(plane)
    lowest, highest = int(plane.min()), int(plane.max())
    if highest - lowest >= min(plane.size, 1 << 16):
        return render(plane)
    values = np.arange(lowest, highest + 1).astype(plane.dtype)
    levels = np.ascontiguousarray(render(values[None])[0, :, 0])
    grey = np.take(levels, plane.astype(np.intp) - lowest)
    shown = np.empty((*plane.shape, 3), np.uint8)
    for channel in range(3):
        shown[:, :, channel] = grey
    return shown
