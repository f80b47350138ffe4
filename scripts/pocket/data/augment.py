"""Change a training image, and everything drawn on it, together."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def turn(array: np.ndarray, symmetry: int, axes: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Apply one of the square's eight symmetries."""
    turned = np.rot90(array, symmetry % 4, axes)
    return np.flip(turned, axes[1]) if symmetry >= 4 else turned


def zoom(
    image: np.ndarray, planes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, scale and shift an image and its planes.

    Args:
        image: (S, S, 3) uint8.
        planes: (K, S, S) integers; nearest neighbours.
        rng: Angle up to 35 degrees, scale 0.6 to 1.9, shift up to an eighth.
    """
    side = image.shape[0]
    angle = rng.uniform(-0.6, 0.6)
    scale = np.exp(rng.uniform(np.log(0.6), np.log(1.9)))
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([stretch, 1 / stretch]) / scale
    middle = np.full(2, side / 2)
    shift = middle - matrix @ (middle + rng.uniform(-side / 8, side / 8, 2))
    coefficients = [*matrix[0], shift[0], *matrix[1], shift[1]]

    def warp(plane: np.ndarray, how: Image.Resampling) -> np.ndarray:
        moved = Image.fromarray(plane).transform(
            (side, side), Image.Transform.AFFINE, coefficients, how
        )
        return np.array(moved)

    warped = [warp(plane.astype(np.int32), Image.Resampling.NEAREST) for plane in planes]
    return warp(image, Image.Resampling.BILINEAR), np.stack(warped).astype(planes.dtype)


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change tone, polarity, colour, sharpness and noise of an (S, S, 3) uint8 image."""
    pixels = image.astype(np.float32) / 255
    if rng.random() < 0.15:
        pixels = 1 - pixels
    if rng.random() < 0.7:
        pixels = pixels ** np.float32(np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.7:
        pixels = (pixels - 0.5) * np.float32(rng.uniform(0.6, 1.4)) + 0.5
        pixels += np.float32(rng.uniform(-0.12, 0.12))
    if rng.random() < 0.3:
        pixels *= 1 + rng.normal(0, 0.12, 3).astype(np.float32)
    if rng.random() < 0.2:
        sigma = rng.uniform(0.5, 1.6)
        pixels = gaussian_filter(pixels, (sigma, sigma, 0), truncate=2.5)
    if rng.random() < 0.35:
        grey = rng.random() < 0.7
        shape = (*pixels.shape[:2], 1 if grey else 3)
        pixels += rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0.01, 0.09))
    pixels = (pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.12:  # taken at a lower resolution
        side = int(rng.integers(72, 170))
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        pixels = np.array(small.resize(image.shape[1::-1], Image.Resampling.BILINEAR))
    return pixels
