"""Scores of the challenge: DSC, NSD, their areas under the curve, and the columns of its table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from medseg_agents.evaluation.protocols.interactive_3d.boxes import classes_of
from medseg_agents.evaluation.protocols.interactive_3d.surface import surface_dice_by_area

LOW_DSC = 0.2
"""Up to this mean DSC, NSD counts as 0 and is not computed."""

SECONDS_PER_CLASS = 90

_ITERATIONS = range(1, 7)
COLUMNS = (
    "CaseName",
    "TotalRunningTime",
    *(f"RunningTime_{n}" for n in _ITERATIONS),
    "DSC_AUC",
    "NSD_AUC",
    "DSC_Final",
    "NSD_Final",
    *(f"DSC_{n}" for n in _ITERATIONS),
    *(f"NSD_{n}" for n in _ITERATIONS),
    "num_class",
    "runtime_upperbound",
)
"""Columns of the challenge's CSV, in its order; iteration 1 is the box, 2 to 6 are the clicks."""


class Score(NamedTuple):
    """Scores of one prediction, means over the classes.

    Args:
        dsc: 0..1.
        nsd: 0..1; 0 where `dsc` is not above `LOW_DSC`.
    """

    dsc: float
    nsd: float


NOTHING = Score(0.0, 0.0)
"""Score of the skipped iteration of a case without a box."""


def score_labels(truth: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]) -> Score:
    """Score a labelled volume.

    Args:
        truth: (D, H, W) whole numbers; every value but the lowest is a class.
        prediction: (D, H, W) whole numbers.
        spacing: Millimetres between slices, rows and columns.

    Raises:
        ValueError: Other shapes, or no class.
    """
    classes = classes_of(truth)
    if truth.shape != prediction.shape or not classes:
        raise ValueError(
            f"a truth with classes and a prediction of its shape are wanted, got {truth.shape} "
            f"with {len(classes)} classes and {prediction.shape}"
        )
    pairs = [(truth == value, prediction == value) for value in classes]
    dsc = float(np.mean([_dsc(*pair) for pair in pairs]))
    if not dsc > LOW_DSC:
        return Score(dsc, 0.0)
    return Score(dsc, float(np.mean([surface_dice_by_area(*pair, spacing) for pair in pairs])))


def auc(values: Sequence[float]) -> float:
    """Return the area under the values after clicks 1 to 5 by trapezoids, one unit a click: 0..4.

    Args:
        values: One per click, in order.
    """
    return float(sum((a + b) / 2 for a, b in pairwise(values)))


def row_of(
    name: str, scores: Sequence[Score], seconds: Sequence[float], classes: int
) -> dict[str, float | str]:
    """Return a row of the table.

    Args:
        name: Of the case.
        scores: Of the box and of five clicks.
        seconds: Of the segmenter, likewise; 0 where skipped.
        classes: How many.
    """
    dsc, nsd = ([getattr(score, name) for score in scores] for name in Score._fields)
    row: dict[str, float | str] = {
        "CaseName": name,
        "TotalRunningTime": float(sum(seconds)),
        "DSC_AUC": auc(dsc[1:]),
        "NSD_AUC": auc(nsd[1:]),
        "DSC_Final": dsc[-1],
        "NSD_Final": nsd[-1],
        "num_class": classes,
        "runtime_upperbound": classes * SECONDS_PER_CLASS,
    }
    for number in _ITERATIONS:
        row[f"RunningTime_{number}"] = seconds[number - 1]
        row[f"DSC_{number}"], row[f"NSD_{number}"] = dsc[number - 1], nsd[number - 1]
    return {column: row[column] for column in COLUMNS}


def _dsc(truth: np.ndarray, prediction: np.ndarray) -> float:
    both = np.count_nonzero(truth & prediction)
    return 2 * both / (np.count_nonzero(truth) + np.count_nonzero(prediction))
