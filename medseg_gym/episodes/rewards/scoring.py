"""Rewards of a stored episode, without a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg_gym.cases import Case
from medseg_gym.episodes.episode import Episode, MaskState
from medseg_gym.episodes.rewards.pay import pay
from medseg_gym.episodes.rewards.protocol import Reward, RewardValue
from medseg_gym.episodes.rewards.registry import make
from medseg_gym.errors import EpisodeError
from medseg_gym.prompts import Prompt


def score_episode(
    reward: str | Reward,
    masks: Sequence[np.ndarray],
    truth: np.ndarray,
    prompts: Sequence[Prompt | None],
    max_steps: int | None = None,
) -> list[RewardValue]:
    """Value a stored episode without a backbone; exact, for Dice goes by pixel counts.

    Args:
        reward: Name, formula or object.
        masks: (H, W) bool, the mask after each step that is not a Stop.
        truth: (H, W) bool.
        prompts: One per step; None where the action could not be read.
        max_steps: Actions the episode might have taken; None takes the last prompt for the end. It
            matters where an outer time limit cut the episode short, so that rewards of the last
            step were not paid.

    Returns:
        One value per step.

    Raises:
        EpisodeError: The numbers of masks and prompts do not fit, or a mask contradicts the rules.
        RewardError: The reward gave no finite number.
    """
    reward = make(reward)
    image = np.zeros((*truth.shape, 3), np.uint8)
    case = Case("stored episode", image, np.asarray(truth), target="")
    limit = max(1, len(prompts)) if max_steps is None else max_steps
    episode = Episode(case, torch.from_numpy(case.mask.copy()), limit)
    values, stored = [], iter(masks)
    for number, prompt in enumerate(prompts):
        effect, error = episode.judge(prompt)
        mask = episode.state.mask
        if effect != "stop":
            given = next(stored, None)
            if given is None:
                raise EpisodeError(f"step {number} has no mask: {len(masks)} masks were given")
            if given.dtype != bool or given.shape != truth.shape:
                raise EpisodeError(
                    f"mask of step {number} is {given.dtype} {given.shape}, "
                    f"expected bool {truth.shape}"
                )
            mask = torch.from_numpy(np.array(given))
        state = None
        if effect == "decode":
            assert prompt is not None
            box, points = episode.with_prompt(prompt)  # type: ignore[arg-type]
            both = int((mask & episode.truth).sum())
            state = MaskState(mask, int(mask.sum()), both, box, points)
        step = episode.record(prompt, effect, error, state)
        if not torch.equal(step.state.mask, mask):
            raise EpisodeError(
                f"mask of step {number} ({step.tool or 'unreadable'}, {effect}) differs from what "
                "the rules leave: an invalid action changes nothing, undo restores, clear empties"
            )
        values.append(pay(reward, episode))
        episode.rewards.append(values[-1].value)
    if next(stored, None) is not None:
        raise EpisodeError(f"{len(masks)} masks for {len(prompts)} prompts: too many masks")
    return values
