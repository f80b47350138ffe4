"""The default reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.composition import ComposableReward
from medseg_gym.episodes.rewards.protocol import RewardValue


@dataclass(frozen=True)
class DiceGain(ComposableReward):
    """dice_t - dice_{t-1} - step_penalty.

    Gains telescope: the return is Dice_T - Dice_0 - cost, so an agent cannot earn by spoiling a
    mask and mending it again. Where the target is absent Dice_0 is 1, and stopping at once is best.

    Args:
        step_penalty: Cost of every action but Stop, invalid ones included.
    """

    name: ClassVar[str] = "dice_gain"
    step_penalty: float = 0.01

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step; terms "dice_gain" and "cost"."""
        gain = episode.dice - episode.previous_dice
        cost = 0.0 if episode.stopped else self.step_penalty
        return RewardValue(gain - cost, {"dice_gain": gain, "cost": cost})
