"""MedSAM-Agent's episode reward (arXiv 2602.03320)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.composition import ComposableReward
from medseg_gym.episodes.rewards.format import format_score
from medseg_gym.episodes.rewards.protocol import RewardValue

_TERMS = ("format", "base", "overshoot", "turn_cost", "bonus", "quality")


@dataclass(frozen=True)
class MedSamAgent(ComposableReward):
    """format_weight · format + quality_weight · clip(base - overshoot - turn cost + bonus, 0, 1).

    An outcome reward: 0 in every step but the last, where it pays the score of the episode; so do
    its terms, which `info` reports unweighted. Over masks m_1..m_T, one per turn:

    - format: 0.5 if there was a box or click, and 0.5 more if the last call was Stop.
    - base: 0.5 · IoU_T + 0.5 · Dice_T, or IoU_T if Dice_T is 0.
    - overshoot: max_t IoU_t - IoU_T where that is at least 1e-6.
    - turn_cost: 0.01 · T.
    - bonus: 0.1 · the sum of what IoU rose from one turn to the next, first mask excepted.

    With T <= 1 the last three are 0. Every action but Stop is a turn and leaves a mask: one that
    was invalid or unreadable (there the episode would have ended) leaves the mask as it was. An
    episode without a turn has one empty mask.

    The bonus counts gains alone, so a mask that goes back and forth earns it again and again;
    `dice_gain` cannot be farmed so. And where there is no target, stopping at once has half the
    format: 0.9. Set `absent_needs_prompt=False` to give it the 1.0 it deserves.

    Args:
        format_weight: Of the format in the score.
        quality_weight: Of the mask and the way to it.
        iou_weight: Of the last IoU in the base.
        dice_weight: Of the last Dice in the base.
        turn_cost: Per turn, the first included, of an episode of at least two.
        bonus_weight: Of the rises in IoU.
        overshoot_from: Smaller gaps to the best mask are rounding, not overshoot.
        absent_needs_prompt: True is the published rule; False asks for no box or click where there
            is no target.
    """

    name: ClassVar[str] = "medsam_agent"
    format_weight: float = 0.2
    quality_weight: float = 0.8
    iou_weight: float = 0.5
    dice_weight: float = 0.5
    turn_cost: float = 0.01
    bonus_weight: float = 0.1
    overshoot_from: float = 1e-6
    absent_needs_prompt: bool = True

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step."""
        if not episode.done:
            return RewardValue(0.0, dict.fromkeys(_TERMS, 0.0))
        form = format_score(episode, self.absent_needs_prompt)
        base = episode.iou
        if episode.dice > 0:
            base = self.iou_weight * episode.iou + self.dice_weight * episode.dice
        ious = [step.iou for step in episode.steps if step.effect != "stop"]
        overshoot = cost = bonus = 0.0
        if len(ious) > 1:
            gap = max(ious) - ious[-1]
            overshoot = gap if gap >= self.overshoot_from else 0.0
            cost = self.turn_cost * len(ious)
            bonus = self.bonus_weight * sum(max(b - a, 0.0) for a, b in pairwise(ious))
        quality = min(max(base - overshoot - cost + bonus, 0.0), 1.0)
        score = self.format_weight * form + self.quality_weight * quality
        terms = (form, base, overshoot, cost, bonus, quality)
        return RewardValue(score, dict(zip(_TERMS, terms, strict=True)))
