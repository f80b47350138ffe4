"""Did the agent stop at its best mask?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.episodes import metrics
from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.composition import ComposableReward
from medseg_gym.episodes.rewards.protocol import RewardValue


@dataclass(frozen=True)
class StopRegret(ComposableReward):
    """Final Dice minus the best one so far (`metrics.stop_regret`, negated), in the last step.

    Added to `dice_gain` it makes spoiling a good mask dearer than never having had it.
    """

    name: ClassVar[str] = "stop_regret"

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step; term "stop_regret" is the regret, not negative."""
        regret = 0.0
        if episode.done:
            regret = metrics.stop_regret([episode.start_dice, *(s.dice for s in episode.steps)])
        return RewardValue(-regret, {"stop_regret": regret})
