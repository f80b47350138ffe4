"""EpisodeSummary: the numbers of one episode, each defined here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.metrics import stop_regret


@dataclass(frozen=True, kw_only=True)
class EpisodeSummary:
    """Numbers of one episode, running or over; the same names in `info`, records, logs and tables.

    Scores are NaN where the truth of the case is not known.
    """

    case: str
    """Key of the case."""

    dice: float
    """Dice of the mask now, 0..1: the final Dice of an episode that is over."""

    iou: float
    """IoU of the mask now, 0..1."""

    start_dice: float
    """Dice before the first action: of the empty mask, so 0, or 1 where the target is absent."""

    first_dice: float
    """Dice after the first action; `start_dice` where none was taken."""

    episode_return: float
    """Sum of rewards so far, undiscounted."""

    turns: int
    """Actions taken, Stop and those that changed nothing included."""

    invalid: int
    """Actions that changed nothing (unreadable or against the rules), those in `cut_off` aside."""

    cut_off: int
    """Actions lost because the model's answer ran into its limit before it held a call; 0 where
    that is not known, and then they are in `invalid`."""

    stopped: bool
    """True if the agent ended the episode by Stop."""

    done: bool
    """True if the episode is over: stopped, or no step left."""

    stop_regret: float
    """Best Dice of the episode, the empty mask's included, minus `dice`: what stopping at the best
    moment would have given."""

    return_regret: float | None = None
    """Greatest return up to any turn, 0 before the first included, minus `episode_return`; None
    where the single rewards are not known."""

    @property
    def valid(self) -> int:
        """Actions that did what their tool does."""
        return self.turns - self.invalid - self.cut_off

    @property
    def valid_rate(self) -> float:
        """Share of actions that did what their tool does, 0..1; 0 before the first."""
        return self.valid / max(self.turns, 1)

    @property
    def last_info(self) -> dict[str, Any]:
        """Entries that the step which ends an episode adds to `info`: the fields `LAST_INFO`."""
        return {name: getattr(self, name) for name in LAST_INFO}

    @classmethod
    def of(
        cls, episode: Episode, cut_off: int = 0, rewards: Sequence[float] | None = None
    ) -> EpisodeSummary:
        """Summarise an episode as it stands.

        Args:
            episode: Running or over.
            cut_off: See the field.
            rewards: One per step; None takes those that the engine paid.
        """
        paid = episode.rewards if rewards is None else rewards
        return cls.from_curves(
            episode.case.key,
            [episode.start_dice, *(step.dice for step in episode.steps)],
            iou=episode.iou,
            rewards=paid,
            unchanged=sum(not step.valid for step in episode.steps),
            cut_off=cut_off,
            stopped=episode.stopped,
            done=episode.done,
        )

    @classmethod
    def from_curves(
        cls,
        case: str,
        dice: Sequence[float],
        *,
        iou: float,
        rewards: Sequence[float],
        unchanged: int,
        stopped: bool,
        done: bool,
        cut_off: int = 0,
    ) -> EpisodeSummary:
        """Summarise an episode of which only numbers are left.

        Args:
            case: Key of the case.
            dice: Before the first action and after each, at least one entry.
            iou: Of the last mask.
            rewards: One per action.
            unchanged: Actions that changed nothing, those that were cut off included.
            stopped: See the field.
            done: See the field.
            cut_off: See the field.
        """
        returns = [0.0, *accumulate(map(float, rewards))]
        return cls(
            case=case,
            dice=float(dice[-1]),
            iou=float(iou),
            start_dice=float(dice[0]),
            first_dice=float(dice[min(1, len(dice) - 1)]),
            episode_return=float(sum(rewards)),
            turns=len(dice) - 1,
            invalid=unchanged - cut_off,
            cut_off=cut_off,
            stopped=stopped,
            done=done,
            stop_regret=stop_regret(dice) if all(map(math.isfinite, dice)) else math.nan,
            return_regret=max(returns) - returns[-1],
        )


LAST_INFO = ("start_dice", "first_dice", "episode_return", "turns", "invalid", "stop_regret")
"""Fields that stand in the `info` of an episode's last step, beside those of every step."""


def mean_summary(summaries: Sequence[EpisodeSummary]) -> dict[str, float]:
    """Average episodes.

    Args:
        summaries: At least one.

    Returns:
        Means of `episode_return`, `dice`, `first_dice`, `turns`, `stopped` (a share) and
        `stop_regret`; `valid_rate` is that of all actions together.
    """
    count = len(summaries)
    names = ("episode_return", "dice", "first_dice", "turns", "stopped", "stop_regret")
    means = {name: sum(getattr(one, name) for one in summaries) / count for name in names}
    turns = sum(one.turns for one in summaries)
    lost = sum(one.invalid + one.cut_off for one in summaries)
    return {**means, "valid_rate": 1 - lost / turns if turns else 0.0}
