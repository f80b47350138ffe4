"""Overlap of two masks: Dice and IoU.

Dice and IoU go by pixel counts, so they are exact whatever device counted. Two empty masks agree
perfectly and score 1.
"""

from __future__ import annotations

import numpy as np


def dice_from_counts(intersection: int, prediction: int, truth: int) -> float:
    """Dice (Sørensen 1948): 2·|P∩T| / (|P|+|T|), 1 if both are empty; from pixel counts."""
    total = prediction + truth
    return 2.0 * intersection / total if total else 1.0


def iou_from_counts(intersection: int, prediction: int, truth: int) -> float:
    """Intersection over union (Jaccard 1912), 1 if both are empty; from pixel counts."""
    union = prediction + truth - intersection
    return intersection / union if union else 1.0


def check_masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays.

    Raises:
        ValueError: Shapes differ or the masks are not bool.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape or prediction.dtype != bool or truth.dtype != bool:
        raise ValueError(
            "masks must be bool arrays of one shape, got "
            f"{prediction.dtype} {prediction.shape} and {truth.dtype} {truth.shape}"
        )
    return prediction, truth


def _counts(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    prediction, truth = check_masks(prediction, truth)
    return (
        int(np.count_nonzero(prediction & truth)),
        int(np.count_nonzero(prediction)),
        int(np.count_nonzero(truth)),
    )


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two (H, W) bool masks, 0..1; 1 if both are empty.

    Raises:
        ValueError: Shapes differ or the masks are not bool.
    """
    return dice_from_counts(*_counts(prediction, truth))


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """IoU of two (H, W) bool masks, 0..1; 1 if both are empty.

    Raises:
        ValueError: Shapes differ or the masks are not bool.
    """
    return iou_from_counts(*_counts(prediction, truth))
