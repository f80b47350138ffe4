"""Metrics of a mask, and of the way to it.

`overlap` counts pixels (Dice, IoU), `surface` measures borders (HD95, NSD, boundary IoU),
`interaction` reads a whole episode (NoC, area under Dice against turns, stop regret). Everywhere
two empty masks agree perfectly: where the target is absent, an empty mask is the right answer.
"""

from medseg_gym.episodes.metrics.interaction import NoC, dice_auc, noc, stop_regret
from medseg_gym.episodes.metrics.overlap import dice, dice_from_counts, iou, iou_from_counts
from medseg_gym.episodes.metrics.surface import (
    BOUNDARY_RATIO,
    NSD_TOLERANCE,
    SurfaceScores,
    boundary_iou,
    hd95,
    nsd,
    surface_scores,
)
from medseg_gym.episodes.metrics.volume import VolumeScores, volume_scores

__all__ = [
    "BOUNDARY_RATIO",
    "NSD_TOLERANCE",
    "NoC",
    "SurfaceScores",
    "VolumeScores",
    "boundary_iou",
    "dice",
    "dice_auc",
    "dice_from_counts",
    "hd95",
    "iou",
    "iou_from_counts",
    "noc",
    "nsd",
    "stop_regret",
    "surface_scores",
    "volume_scores",
]
