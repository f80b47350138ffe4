"""Boxes by the challenge's rule, for files that hold none."""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.npz import VolumeBox

SEED = 2025
SHIFTS = 6
"""A side moves by 0 to 5 pixels of an image of 256: numpy's `randint(0, 6)` leaves out the 6."""


def make_boxes(labels: np.ndarray) -> tuple[VolumeBox, ...]:
    """Return the box of each class that occurs, in ascending order of the labels.

    The rectangle lies on the middle one of the slices that hold the class; each side moves outward
    by the same number of pixels, drawn per class, scaled to the image and cut off at its edge. The
    challenge seeds once and goes through files in several processes, so which number a file got
    depends on their order; here each file starts with the seed, as the first file did there.

    Args:
        labels: (D, H, W) whole numbers, 0 is background.
    """
    draws = np.random.RandomState(SEED)
    _, height, width = labels.shape
    boxes = []
    for value in classes_of(labels):
        mask = labels == value
        slices = np.flatnonzero(mask.any(axis=(1, 2)))
        middle = int(slices[len(slices) // 2])
        rows, columns = (np.flatnonzero(mask[middle].any(axis=axis)) for axis in (1, 0))
        shift = int(draws.randint(0, SHIFTS, 1)[0])
        along_x, along_y = int(shift * width / 256), int(shift * height / 256)
        boxes.append(
            VolumeBox(
                z_min=int(slices[0]),
                z_max=int(slices[-1]),
                z_mid=middle,
                z_mid_x_min=max(0, int(columns[0]) - along_x),
                z_mid_y_min=max(0, int(rows[0]) - along_y),
                z_mid_x_max=min(width - 1, int(columns[-1]) + along_x),
                z_mid_y_max=min(height - 1, int(rows[-1]) + along_y),
            )
        )
    return tuple(boxes)


def classes_of(labels: np.ndarray) -> tuple[int, ...]:
    """Return the label values that occur, ascending, without background.

    Args:
        labels: (D, H, W) whole numbers; the lowest value that occurs counts as background, as in
            the challenge's arithmetic.
    """
    return tuple(int(value) for value in np.unique(labels)[1:])
