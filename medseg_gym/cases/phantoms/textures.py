"""Random fields and picture chains: what makes a flat drawing look like an acquisition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from medseg_gym.cases.phantoms.contours import SIZE

ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
"""(256, 256) float32 pixel coordinates y and x."""


def enlarge(field: np.ndarray) -> np.ndarray:
    """Enlarge a small (h, w) field to (256, 256) float32 with a cubic kernel."""
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.array(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def smooth_noise(rng: np.random.Generator, cells: int, rows: int | None = None) -> np.ndarray:
    """Return (256, 256) float32 noise of about unit variance with `cells` cells a side.

    Args:
        rng: Source of the noise.
        cells: Cells along x; more cells are a finer texture.
        rows: Cells along y, as many as along x if not given.
    """
    small = rng.standard_normal((rows or cells, cells), dtype=np.float32)
    return enlarge(small) * np.float32(1.25)


def grain(rng: np.random.Generator, sigma: float = 0.0) -> np.ndarray:
    """Return (256, 256) float32 unit-variance noise, correlated over about `sigma` pixels."""
    noise = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    if sigma <= 0:
        return noise
    return blur(noise, sigma) * np.float32(2.0 * np.sqrt(np.pi) * max(sigma, 0.5))


def speckle(rng: np.random.Generator, axial: float, lateral: float) -> np.ndarray:
    """Fully developed ultrasound speckle: a Rayleigh amplitude of mean square one.

    The amplitude of a complex Gaussian field, smoothed by the size of the resolution cell;
    multiply the mean amplitude of the tissue by it (J. W. Goodman, Speckle Phenomena, 2007).

    Args:
        rng: Source of the field.
        axial: Size of the resolution cell along the beam (rows), pixels.
        lateral: Size across the beam (columns), pixels.
    """
    parts = rng.standard_normal((2, SIZE, SIZE), dtype=np.float32)
    parts = gaussian_filter(parts, (0, axial, lateral), truncate=2.5, mode="reflect")
    power = parts[0] ** 2 + parts[1] ** 2
    return np.sqrt(power / power.mean())


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a (256, 256) field; wide ones are done on a coarser grid."""
    field = np.asarray(field, dtype=np.float32)
    if sigma < 6:
        return gaussian_filter(field, sigma, truncate=2.5, mode="nearest")
    step = 4
    small = field.reshape(SIZE // step, step, SIZE // step, step).mean(axis=(1, 3))
    return enlarge(gaussian_filter(small, sigma / step, truncate=2.5, mode="nearest"))


def vary(rng: np.random.Generator, value: float, spread: float) -> float:
    """Return `value` moved by at most `spread` to either side."""
    return float(value + spread * rng.uniform(-1.0, 1.0))


def grey_picture(
    rng: np.random.Generator,
    field: np.ndarray,
    noise: tuple[float, float],
    sharpness: tuple[float, float] = (0.5, 1.5),
    noise_grain: float = 0.0,
) -> np.ndarray:
    """Turn a noise-free field into an acquired grey picture: blur, noise, window, tone.

    Args:
        rng: Source of the settings and of the noise.
        field: (256, 256) float, black 0 to white 1.
        noise: Range of the noise's standard deviation.
        sharpness: Range of the blur in pixels.
        noise_grain: Correlation of the noise in pixels.

    Returns:
        (256, 256, 3) uint8, three equal channels.
    """
    field = blur(field, rng.uniform(*sharpness))
    field = field + np.float32(rng.uniform(*noise)) * grain(rng, noise_grain)
    contrast, brightness = rng.uniform(0.8, 1.25), rng.uniform(-0.08, 0.08)
    field = np.clip((field - 0.45) * contrast + 0.45 + brightness, 0.0, 1.0)
    return as_rgb(toned(field, rng.uniform(-0.35, 0.35)))


def colour_picture(
    rng: np.random.Generator,
    field: np.ndarray,
    noise: tuple[float, float],
    sharpness: tuple[float, float] = (0.6, 1.4),
) -> np.ndarray:
    """Turn a noise-free colour field into an acquired picture: blur, noise, white balance, tone.

    Args:
        rng: Source of the settings and of the noise.
        field: (256, 256, 3) float32, 0 to 1.
        noise: Range of the noise's standard deviation.
        sharpness: Range of the blur in pixels.

    Returns:
        (256, 256, 3) uint8.
    """
    sigma = rng.uniform(*sharpness)
    field = gaussian_filter(field, (sigma, sigma, 0), truncate=2.5, mode="nearest")
    level = np.float32(rng.uniform(*noise))
    balance = rng.uniform(0.9, 1.1, 3).astype(np.float32) * np.float32(rng.uniform(0.85, 1.15))
    field = (field + level * grain(rng)[:, :, None]) * balance
    return as_rgb(toned(np.clip(field, 0.0, 1.0), rng.uniform(-0.35, 0.35)))


def toned(field: np.ndarray, bend: float) -> np.ndarray:
    """Apply a smooth tone curve that keeps 0 and 1: brighter mid tones for `bend` > 0."""
    return field * (1 + np.float32(bend) * (1 - field))


def as_rgb(field: np.ndarray) -> np.ndarray:
    """Round a (256, 256) or (256, 256, 3) field of 0..1 to (256, 256, 3) uint8."""
    pixels = (field * 255.0 + 0.5).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Return a colour as (3,) float32."""
    return np.array((red, green, blue), np.float32)


def squared_distance(point: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the (256, 256) float32 squared distance to (x, y) in pixels."""
    return (COLUMNS - np.float32(point[0])) ** 2 + (ROWS - np.float32(point[1])) ** 2
