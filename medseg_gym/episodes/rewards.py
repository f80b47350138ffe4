"""What an action is worth: small objects called with the Episode after every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from medseg_gym.cases import Case
from medseg_gym.episodes.episode import Episode, MaskState
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.prompts import Prompt


class RewardValue(NamedTuple):
    """Reward of one step and the terms it is made of, which `info` reports."""

    value: float
    terms: Mapping[str, float]


class Reward(Protocol):
    """Called once after every step, with the step recorded; holds no state of its own.

    The term "cost", where given, becomes `info["cost"]`.
    """

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step of an episode."""
        ...


@dataclass(frozen=True)
class DiceGain:
    """dice_t - dice_{t-1} - step_penalty.

    Gains telescope: the return is Dice_T - Dice_0 - cost, so an agent cannot earn by spoiling a
    mask and mending it again.

    Args:
        step_penalty: Cost of every action but Stop, invalid ones included.
    """

    step_penalty: float = 0.01

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step."""
        gain = episode.dice - episode.previous_dice
        cost = 0.0 if episode.stopped else self.step_penalty
        return RewardValue(gain - cost, {"dice_gain": gain, "cost": cost})


_REWARDS: dict[str, Callable[..., Reward]] = {"dice_gain": DiceGain}


def register(name: str, factory: Callable[..., Reward]) -> None:
    """Make `make(name, **options)` call `factory(**options)`.

    Raises:
        MedSegError: The name is taken.
    """
    if name in _REWARDS:
        raise MedSegError(f"a reward named {name!r} is registered already")
    _REWARDS[name] = factory


def make(name: str | Reward, **options: float) -> Reward:
    """Get a reward by name, or give a Reward object back as it is.

    Raises:
        MedSegError: Unknown name, or options for a Reward that is made already.
    """
    if not isinstance(name, str):
        if options:
            raise MedSegError(f"options go with a reward's name; {name!r} was given")
        return name
    if name not in _REWARDS:
        raise MedSegError(
            f"unknown reward {name!r}; known: {', '.join(sorted(_REWARDS))}. "
            "Pass an object called with the Episode for your own"
        )
    return _REWARDS[name](**options)


def score_episode(
    reward: str | Reward,
    masks: Sequence[np.ndarray],
    truth: np.ndarray,
    prompts: Sequence[Prompt | None],
) -> list[RewardValue]:
    """Value a stored episode without a backbone; exact, for Dice goes by pixel counts.

    Args:
        reward: Name or object.
        masks: (H, W) bool, the mask after each step that is not a Stop.
        truth: (H, W) bool.
        prompts: One per step; None where the action could not be read.

    Returns:
        One value per step.

    Raises:
        EpisodeError: The numbers of masks and prompts do not fit, or a mask contradicts the rules.
    """
    reward = make(reward)
    image = np.zeros((*truth.shape, 3), np.uint8)
    case = Case("stored episode", image, np.asarray(truth), target="")
    episode = Episode(case, torch.from_numpy(case.mask.copy()), max_steps=max(1, len(prompts)))
    values, stored = [], iter(masks)
    for number, prompt in enumerate(prompts):
        effect, error = episode.judge(prompt)
        mask = episode.state.mask
        if effect != "stop":
            found = next(stored, None)
            if found is None:
                raise EpisodeError(f"step {number} has no mask: {len(masks)} masks were given")
            if found.dtype != bool or found.shape != truth.shape:
                raise EpisodeError(
                    f"mask of step {number} is {found.dtype} {found.shape}, "
                    f"expected bool {truth.shape}"
                )
            mask = torch.from_numpy(np.array(found))
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
        values.append(reward(episode))
    if next(stored, None) is not None:
        raise EpisodeError(f"{len(masks)} masks for {len(prompts)} prompts: too many masks")
    return values
