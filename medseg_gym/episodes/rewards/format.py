"""Were the tools used as the protocol asks?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.composition import ComposableReward
from medseg_gym.episodes.rewards.protocol import RewardValue
from medseg_gym.prompts import AddBox, AddPoint


def format_score(episode: Episode, absent_needs_prompt: bool) -> float:
    """MedSAM-Agent's format term: 0.5 for a box or click called, 0.5 for a Stop as the last call.

    It judges calls, not what they did: a readable box counts even if it has no area, an unreadable
    call never does, and neither takes anything away.

    Args:
        episode: That is over.
        absent_needs_prompt: False also gives the first half where there is no target.
    """
    prompted = any(isinstance(step.prompt, (AddBox, AddPoint)) for step in episode.steps)
    excused = not absent_needs_prompt and not episode.truth_pixels
    return 0.5 * (prompted or excused) + 0.5 * episode.stopped


@dataclass(frozen=True)
class Format(ComposableReward):
    """1 if there was a box or click and Stop ended the episode, 0.5 for one of the two.

    Paid once, in the last step, so that it cannot be earned by going on.

    Args:
        absent_needs_prompt: False asks for Stop alone where there is no target to prompt for; True
            is MedSAM-Agent's rule, by which stopping at once never scores more than 0.5.
    """

    name: ClassVar[str] = "format"
    absent_needs_prompt: bool = False

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step; term "format", 0 before the last step."""
        score = format_score(episode, self.absent_needs_prompt) if episode.done else 0.0
        return RewardValue(score, {"format": score})
