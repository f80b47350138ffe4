"""Random fields and image chains: what makes a flat drawing look like an acquisition."""

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
    speckle: np.ndarray = np.sqrt(power / power.mean())
    return speckle


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a (256, 256) field; wide ones are done on a coarser grid."""
    field = np.asarray(field, dtype=np.float32)
    if sigma < 1.8:
        blurred: np.ndarray = gaussian_filter(field, sigma, truncate=2.5, mode="nearest")
        return blurred
    small, step = _halved(field), 2
    if sigma >= 6:
        small, step = _halved(small), 4
    return enlarge(gaussian_filter(small, sigma / step, truncate=2.5, mode="nearest"))


def _halved(field: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels."""
    rows = field[::2] + field[1::2]
    means: np.ndarray = (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)
    return means


def vary(rng: np.random.Generator, value: float, spread: float) -> float:
    """Return `value` moved by at most `spread` to either side."""
    return float(value + spread * rng.uniform(-1.0, 1.0))


def grey_image(
    rng: np.random.Generator,
    field: np.ndarray,
    noise: tuple[float, float],
    sharpness: tuple[float, float] = (0.5, 1.5),
    noise_grain: float = 0.0,
) -> np.ndarray:
    """Turn a noise-free field into an acquired grey image: blur, noise, window, tone.

    Args:
        rng: Source of the settings and of the noise.
        field: (256, 256) float, black 0 to white 1.
        noise: Range of the noise's standard deviation.
        sharpness: Range of the blur in pixels.
        noise_grain: Correlation of the noise in pixels.

    Returns:
        (256, 256, 3) uint8, three equal channels.
    """
    plane = blur(field, rng.uniform(*sharpness))
    plane += np.float32(rng.uniform(*noise)) * grain(rng, noise_grain)
    contrast, brightness = rng.uniform(0.8, 1.25), rng.uniform(-0.08, 0.08)
    plane *= contrast
    plane += 0.45 * (1 - contrast) + brightness
    return as_rgb(_toned(plane, rng.uniform(-0.35, 0.35)))


def colour_image(
    rng: np.random.Generator,
    field: np.ndarray,
    noise: tuple[float, float],
    sharpness: tuple[float, float] = (0.6, 1.4),
) -> np.ndarray:
    """Turn a noise-free colour field into an acquired image: blur, noise, white balance, tone.

    Args:
        rng: Source of the settings and of the noise.
        field: (3, 256, 256) float32, 0 to 1; planes are much faster than pixels here.
        noise: Range of the noise's standard deviation.
        sharpness: Range of the blur in pixels.

    Returns:
        (256, 256, 3) uint8.
    """
    sigma = rng.uniform(*sharpness)
    noisy = np.float32(rng.uniform(*noise)) * grain(rng)
    balance = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.85, 1.15)
    bend = rng.uniform(-0.35, 0.35)
    planes = []
    for channel in range(3):  # plane by plane stays in the cache
        plane = blur(field[channel], sigma)
        plane += noisy
        plane *= np.float32(balance[channel])
        planes.append(_toned(plane, bend))
    return as_rgb(*planes)


def _toned(plane: np.ndarray, bend: float) -> np.ndarray:
    """Clip to 0..1 and apply, in place, a tone curve that keeps both ends."""
    np.clip(plane, 0.0, 1.0, out=plane)
    plane *= np.float32(1 + bend) - np.float32(bend) * plane
    return plane


def as_rgb(*planes: np.ndarray) -> np.ndarray:
    """Round one or three (256, 256) fields of 0..1 to (256, 256, 3) uint8."""
    pixels = np.empty((SIZE, SIZE, 3), np.uint8)
    for channel in range(3):
        if channel < len(planes):
            rounded = (planes[channel] * np.float32(255) + np.float32(0.5)).astype(np.uint8)
        pixels[:, :, channel] = rounded
    return pixels


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Return a colour as (3, 1, 1) float32."""
    return np.array((red, green, blue), np.float32).reshape(3, 1, 1)


def tint(
    field: np.ndarray,
    mask: np.ndarray,
    factor: np.ndarray | float = 1.0,
    light: np.ndarray | float = 0.0,
) -> None:
    """Multiply a (3, 256, 256) field inside `mask` by a colour and add another, in place."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size:
        box = np.s_[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        np.copyto(field[box], field[box] * factor + light, where=mask[box])


def squared_distance(point: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the (256, 256) float32 squared distance to (x, y) in pixels."""
    squared: np.ndarray = (COLUMNS - np.float32(point[0])) ** 2 + (ROWS - np.float32(point[1])) ** 2
    return squared
