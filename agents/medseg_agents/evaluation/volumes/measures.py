"""Measures of the mask of a volume, and the notes that go with them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medseg_gym.cases import VolumeCase
from medseg_gym.episodes import metrics

NO_SPACING = "no spacing, so nothing in mm or mL"
ONE_SLICE = "one slice: no surface and no mL in 3D"


class VolumeMeasures(NamedTuple):
    """Scores of one mask; see `VolumeScores`.

    Args:
        dice: 0..1.
        hd95: In mm; None where one mask is empty, or there are no distances (see `notes`).
        nsd_1mm: 0..1; None where there are no distances.
        nsd_2mm: Likewise.
        volume_error_ml: Mask less truth; None where the volume of a voxel is unknown.
        notes: Why something is None, and whether there is a target at all.
    """

    dice: float
    hd95: float | None
    nsd_1mm: float | None
    nsd_2mm: float | None
    volume_error_ml: float | None
    notes: tuple[str, ...]


def measure_volume(mask: np.ndarray, case: VolumeCase) -> VolumeMeasures:
    """Score the mask of a volume, as far as its grid allows.

    Distances need a spacing, more than one slice (of a single one every voxel lies on the surface),
    and axes at right angles: in a stack that a tilted gantry made, millimetres along the axes are
    no distances.

    Args:
        mask: (D, H, W) bool.
        case: The volume, with a known truth.
    """
    dice = metrics.dice(mask, case.mask)
    notes = [] if case.mask.any() else ["the truth is empty"]
    if case.spacing is None or case.voxel_ml is None:
        return VolumeMeasures(dice, None, None, None, None, (*notes, NO_SPACING))
    if case.depth == 1:
        return VolumeMeasures(dice, None, None, None, None, (*notes, ONE_SLICE))
    voxels = int(np.count_nonzero(mask)) - int(np.count_nonzero(case.mask))
    error = voxels * case.voxel_ml
    tilt = case.geometry.tilt if case.geometry else 0.0
    if tilt:
        notes.append(f"a stack tilted by {tilt:.1f} degrees: no distances in mm")
        return VolumeMeasures(dice, None, None, None, error, tuple(notes))
    scores = metrics.volume_scores(mask, case.mask, case.spacing)
    hd95 = scores.hd95 if math.isfinite(scores.hd95) else None
    return VolumeMeasures(dice, hd95, scores.nsd_1mm, scores.nsd_2mm, error, tuple(notes))
