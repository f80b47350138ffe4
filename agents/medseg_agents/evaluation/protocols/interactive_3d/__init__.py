"""The interactive 3D protocol of the CVPR 2025 foundation-model challenge.

A box and then five clicks, one at a time in the largest error of each class; `run_protocol` plays
it on .npz files. The rules are those of the challenge's own evaluation (Apache-2.0):
https://github.com/JunMa11/CVPR-MedSegFMCompetition
"""

from medseg_agents.evaluation.protocols.interactive_3d.boxes import make_boxes
from medseg_agents.evaluation.protocols.interactive_3d.clicks import ClassClicks, next_click
from medseg_agents.evaluation.protocols.interactive_3d.iterations import (
    CLICKS,
    Played,
    play_case,
)
from medseg_agents.evaluation.protocols.interactive_3d.run import run_protocol
from medseg_agents.evaluation.protocols.interactive_3d.scores import (
    COLUMNS,
    Score,
    auc,
    score_labels,
)
from medseg_agents.evaluation.protocols.interactive_3d.segmenter import InteractiveSegmenter3D
from medseg_agents.evaluation.protocols.interactive_3d.slice_by_slice import SliceBySlice
from medseg_agents.evaluation.protocols.interactive_3d.surface import (
    surface_dice_by_area,
)
from medseg_agents.evaluation.protocols.interactive_3d.whole_volume import WholeVolume

__all__ = [
    "CLICKS",
    "COLUMNS",
    "ClassClicks",
    "InteractiveSegmenter3D",
    "Played",
    "Score",
    "SliceBySlice",
    "WholeVolume",
    "auc",
    "make_boxes",
    "next_click",
    "play_case",
    "run_protocol",
    "score_labels",
    "surface_dice_by_area",
]
