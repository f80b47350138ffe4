"""Outcome of an episode, in numbers that a trainer logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medseg_gym.episodes import Episode


@dataclass(frozen=True)
class Outcome:
    """An episode as it stands.

    Args:
        total: Sum of its rewards.
        dice: Of the mask now.
        start_dice: Before the first step: 0, or 1 where there is no target.
        turns: Steps taken, refused answers included.
        valid: Of them, those that did what they asked for.
        stopped: Whether the agent ended it itself.
        over: Whether it is over: stopped, or no step left.
        case: Key.
    """

    total: float
    dice: float
    start_dice: float
    turns: int
    valid: int
    stopped: bool
    over: bool
    case: str


def outcome_of(episode: Episode, total: float) -> Outcome:
    """Return the outcome of an episode.

    Args:
        episode: Running or over.
        total: Sum of its rewards so far.
    """
    return Outcome(
        total=float(total),
        dice=float(episode.dice),
        start_dice=float(episode.start_dice),
        turns=len(episode.steps),
        valid=sum(step.valid for step in episode.steps),
        stopped=episode.stopped,
        over=episode.done,
        case=episode.case.key,
    )


def log_outcomes(
    outcomes: Sequence[Outcome], log_metric: Callable[[str, float], None] | None
) -> None:
    """Log means over a batch, under `medseg/`: return, dice, turns, valid_rate, stop_rate.

    Args:
        outcomes: At least one.
        log_metric: As TRL gives it to reward functions; None logs nothing.
    """
    if log_metric is None:
        return
    count = len(outcomes)
    log_metric("medseg/return", sum(o.total for o in outcomes) / count)
    log_metric("medseg/dice", sum(o.dice for o in outcomes) / count)
    turns = sum(o.turns for o in outcomes)
    log_metric("medseg/turns", turns / count)
    log_metric("medseg/valid_rate", sum(o.valid for o in outcomes) / max(turns, 1))
    log_metric("medseg/stop_rate", sum(o.stopped for o in outcomes) / count)
