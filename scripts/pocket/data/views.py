"""Square views of images of any size: what a training image looks like before augmentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 256
"""Side of every training image in pixels."""


def square_view(
    image: np.ndarray, labels: np.ndarray | None, rng: np.random.Generator, whole: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square out of an image, or pad all of it to one, and scale it to SIDE.

    Args:
        image: (H, W) or (H, W, 3) uint8.
        labels: (H, W) integers, 0 for none, or None.
        rng: Where and how large the cut is: 35 to 90 % of the longer side.
        whole: Take everything, padded below and to the right as SAM pads.

    Returns:
        (SIDE, SIDE, 3) uint8 and (SIDE, SIDE) int16.
    """
    height, width = image.shape[:2]
    side = (
        max(height, width) if whole else max(8, round(max(height, width) * rng.uniform(0.35, 0.9)))
    )
    top = 0 if whole else int(rng.integers(0, max(1, height - side + 1)))
    left = 0 if whole else int(rng.integers(0, max(1, width - side + 1)))
    window = (left, top, left + side, top + side)  # what lies beyond the image is black
    pixels = Image.fromarray(image).convert("RGB").crop(window)
    small = np.array(pixels.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=None))
    if labels is None:
        return small, np.zeros((SIDE, SIDE), np.int16)
    cropped = Image.fromarray(labels.astype(np.int32)).crop(window)
    return small, np.array(cropped.resize((SIDE, SIDE), Image.Resampling.NEAREST), np.int16)
