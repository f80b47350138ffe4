"""Scores of the mask of a volume: overlap, borders in three dimensions, and size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medseg_gym.episodes.metrics.overlap import dice
from medseg_gym.episodes.metrics.surface import Spacing, surface_scores


class VolumeScores(NamedTuple):
    """Scores of one mask of a volume.

    Args:
        dice: 0..1 over voxels; 1 if both masks are empty.
        hd95: 95 % Hausdorff distance in mm; 0 if both masks are empty, inf if one of them is.
        nsd_1mm: Normalised surface Dice at a tolerance of 1 mm, 0..1.
        nsd_2mm: At 2 mm.
        volume_error_ml: Millilitres of the prediction less those of the truth.
    """

    dice: float
    hd95: float
    nsd_1mm: float
    nsd_2mm: float
    volume_error_ml: float


def volume_scores(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing) -> VolumeScores:
    """Score the mask of a volume; definitions are those of `dice` and `surface_scores`.

    Args:
        prediction: (D, H, W) bool.
        truth: (D, H, W) bool.
        spacing: Millimetres between slices, rows and columns.

    Raises:
        ValueError: Masks of different shapes, not bool or not of three axes, or a spacing that is
            not three positive, finite numbers.
    """
    if np.ndim(prediction) != 3:
        raise ValueError(f"masks must have three axes, got {np.shape(prediction)}")
    near, far = (surface_scores(prediction, truth, spacing, mm) for mm in (1.0, 2.0))
    error = (int(np.count_nonzero(prediction)) - int(np.count_nonzero(truth))) * math.prod(spacing)
    return VolumeScores(dice(prediction, truth), near.hd95, near.nsd, far.nsd, error / 1000)
