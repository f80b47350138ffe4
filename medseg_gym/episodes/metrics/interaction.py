"""Metrics of an episode: how soon its mask was good, and whether the agent stopped in time.

A curve holds the score before the first turn and after each, so it has one entry more than there
were turns. An episode that ended early keeps its last score for the turns it did not use. A turn is
any action but Stop: what costs a user effort, be it a click, a box, an undo or a slip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class NoC(NamedTuple):
    """Number of clicks.

    Args:
        turns: Turns until the score was reached; the most there were if it never was.
        failed: True if it never was.
    """

    turns: int
    failed: bool


def noc(iou: Sequence[float], threshold: float, max_turns: int) -> NoC:
    """Number of clicks NoC@threshold (Xu et al. 2016; Sofiiuk et al. 2022, arXiv 2102.06583).

    The first t <= max_turns with IoU_t >= threshold. As in the literature it goes by IoU, and a
    case that never gets there counts `max_turns` and as a failure, whether the agent gave up early
    or not; unlike there a box is a turn, too. An absent target is right from the start: 0.

    Args:
        iou: Curve, 0..1.
        threshold: 0.8, 0.85 or 0.9 in most tables.
        max_turns: Turns that the episode could have taken.

    Raises:
        ValueError: An empty curve, or a score or threshold that is not finite.
    """
    _check(iou)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite, got {threshold}")
    for turn, value in enumerate(iou[: max_turns + 1]):
        if value >= threshold:
            return NoC(turn, False)
    return NoC(max_turns, True)


def dice_auc(dice: Sequence[float], max_turns: int) -> float:
    """Area under Dice against turns by the trapezoidal rule, divided by `max_turns`: 0..1.

    1/N · Σ_{t=1..N} (Dice_{t-1} + Dice_t) / 2 with N = `max_turns`. The challenge on interactive
    segmentation at CVPR 2025 integrates likewise (DSC_AUC), from the first click on and without the
    division. Here it starts before the first turn, so a perfect first prompt scores 1 - 0.5 / N.

    Args:
        dice: Curve, 0..1.
        max_turns: Turns that the episode could have taken, at least 1.

    Raises:
        ValueError: An empty curve, one with values that are not finite, or no turns.
    """
    _check(dice)
    if max_turns < 1:
        raise ValueError(f"max_turns must be at least 1, got {max_turns}")
    held = [dice[min(turn, len(dice) - 1)] for turn in range(max_turns + 1)]
    return (sum(held) - (held[0] + held[-1]) / 2) / max_turns


def stop_regret(dice: Sequence[float]) -> float:
    """Best Dice of the episode minus the final one: what a better moment to stop would have given.

    The mask before the first turn counts, so spoiling an empty mask where there is no target is
    regretted.

    Args:
        dice: Curve, 0..1.

    Raises:
        ValueError: An empty curve, or one with values that are not finite.
    """
    _check(dice)
    return max(dice) - dice[-1]


def _check(curve: Sequence[float]) -> None:
    if not len(curve):
        raise ValueError("a curve needs at least the score before the first turn")
    if not all(map(math.isfinite, curve)):
        raise ValueError(f"a curve holds finite scores alone, got {list(curve)[:10]}")
