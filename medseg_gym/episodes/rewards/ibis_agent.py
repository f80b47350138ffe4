"""IBISAgent's reward per step (arXiv 2601.03054)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.composition import ComposableReward
from medseg_gym.episodes.rewards.protocol import RewardValue
from medseg_gym.prompts import AddPoint
from medseg_gym.prompts.grid import to_cell


@dataclass(frozen=True)
class IbisAgent(ComposableReward):
    """Mean of five terms, paid in every step, Stop and invalid ones included.

    - format: 1 if the action could be read, else 0.
    - iou_tier: 0, 1, 2 or 3 as the IoU now lies above none, one, two or three of `tiers`.
    - click: 1 if a positive click fell on target that the mask before it missed, or a negative one
      on false foreground; -1 for any other click; 0 for a step without a click (box, Undo, Clear,
      Stop, unreadable).
    - iou_rise: 1 if IoU rose in this step, else 0.
    - length: 1 in the first `free_steps` steps; in step n after them -0.2 · (n - free_steps).

    Terms are reported unweighted. The mean of them is paid again in every step, so a long episode
    on a good mask earns more than a short one up to `free_steps`; that is the published reward. An
    absent target has IoU 1 under the empty mask: stopping at once earns the mean 1.0, and no
    way of playing it earns more per step.

    A click is judged by one pixel of the mask before it, which on a GPU costs a transfer per slot.

    Args:
        format_weight: Of the format; all five weights are 1/5 for the mean.
        tier_weight: Of the IoU tier.
        click_weight: Of the click placement.
        rise_weight: Of the rise in IoU.
        length_weight: Of the length.
        tiers: IoU above which the tier rises by 1.
        free_steps: Steps that are not too many.
        length_penalty: Per step beyond them.
    """

    name: ClassVar[str] = "ibis_agent"
    format_weight: float = 0.2
    tier_weight: float = 0.2
    click_weight: float = 0.2
    rise_weight: float = 0.2
    length_weight: float = 0.2
    tiers: tuple[float, ...] = (0.5, 0.7, 0.8)
    free_steps: int = 5
    length_penalty: float = 0.2

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step."""
        step = episode.steps[-1]
        before = episode.steps[-2].iou if len(episode.steps) > 1 else episode.start_iou
        late = len(episode.steps) - self.free_steps
        terms = {
            "format": float(step.prompt is not None),
            "iou_tier": float(sum(step.iou > tier for tier in self.tiers)),
            "click": _judge_click(episode),
            "iou_rise": float(step.iou > before),
            "length": 1.0 if late <= 0 else -self.length_penalty * late,
        }
        value = (
            self.format_weight * terms["format"]
            + self.tier_weight * terms["iou_tier"]
            + self.click_weight * terms["click"]
            + self.rise_weight * terms["iou_rise"]
            + self.length_weight * terms["length"]
        )
        return RewardValue(value, terms)


def _judge_click(episode: Episode) -> float:
    click = episode.steps[-1].prompt
    if not isinstance(click, AddPoint):
        return 0.0
    seen = episode.steps[-2].state if len(episode.steps) > 1 else episode.start
    height, width = episode.case.mask.shape
    pixel = to_cell(click.y, height), to_cell(click.x, width)
    in_truth, in_mask = bool(episode.case.mask[pixel]), bool(seen.mask[pixel])
    right = in_truth and not in_mask if click.positive else in_mask and not in_truth
    return 1.0 if right else -1.0
