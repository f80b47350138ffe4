"""From a stored trajectory on a volume back to a VolumeEpisode, and its rewards."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from medseg_gym.cases import VolumeCase
from medseg_gym.episodes import Episode, rewards
from medseg_gym.episodes.rewards import Reward
from medseg_gym.episodes.volumes import SliceState, VolumeEpisode, VolumeState
from medseg_gym.errors import EpisodeError
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import SlicePrompt
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.rebuild import StoredCases, rebuild_episode
from medseg_gym.trajectories.store.mask_codec import unpack_mask
from medseg_gym.trajectories.trajectory import Trajectory


def stored_volume(trajectory: Trajectory) -> VolumeCase:
    """The volume as far as the store knows it: truth and names, with a black image."""
    facts = trajectory.facts
    return VolumeCase(
        facts.key.case,
        np.zeros(facts.shape, np.uint8),
        trajectory.truth,
        target=facts.target,
        modality=facts.modality,
        group=facts.group,
        source=facts.source,
        synthetic=facts.synthetic,
        truth_known=facts.truth_known,
    )


def rebuild_volume_episode(
    trajectory: Trajectory,
    case: VolumeCase | None = None,
    on_step: Callable[[VolumeEpisode], None] | None = None,
) -> VolumeEpisode:
    """The VolumeEpisode with its stored masks, without a backbone; it holds no logits.

    Args:
        trajectory: As stored, of a volume.
        case: From `StoredCases.find_volume`; None takes `stored_volume`.
        on_step: Called after every step.

    Raises:
        TrajectoryError: It is that of an image.
        EpisodeError: The record contradicts the rules of episodes.
    """
    if trajectory.facts.depth is None:
        raise TrajectoryError(
            f"{trajectory.key.case!r} is an image; rebuild_episode gives its episode"
        )
    case = stored_volume(trajectory) if case is None else case
    max_steps = int(trajectory.facts.options.get("max_steps", len(trajectory.steps)))
    episode = VolumeEpisode(case, max_steps)
    for number, step in enumerate(trajectory.steps):
        mask = unpack_mask(step.mask, *trajectory.facts.shape)  # one at a time: they are large
        effect, error = episode.judge(step.prompt)  # type: ignore[arg-type]
        state = None
        if effect == "decode":
            assert isinstance(step.prompt, SlicePrompt)
            index = step.prompt.slice
            made = _prompted(episode.state, step.prompt, mask[index], case.mask[index])
            state = episode.state.with_slices({index: made})
        elif effect == "propagate":
            state = _propagated(episode.state, mask, case.mask)
        episode.record(step.prompt, effect, step.error or error, state)  # type: ignore[arg-type]
        if not np.array_equal(episode.mask(), mask):
            raise EpisodeError(
                f"{trajectory.key.case!r}: the mask of step {number} "
                f"({step.tool or 'unreadable'}, {effect}) differs from what the rules leave: a "
                "prompt changes its own slice alone, an invalid action nothing"
            )
        if on_step is not None:
            on_step(episode)
    if on_step is None:
        episode.rewards = trajectory.rewards
    return episode


def rebuild_found(trajectory: Trajectory, cases: StoredCases) -> Episode | VolumeEpisode:
    """The episode of an image or a volume, on the case that is found for it.

    Args:
        trajectory: As stored.
        cases: Where its case is.

    Raises:
        TrajectoryError: See `StoredCases.find`.
        EpisodeError: The record contradicts the rules of episodes.
    """
    if trajectory.facts.depth is None:
        return rebuild_episode(trajectory, cases.find(trajectory))
    return rebuild_volume_episode(trajectory, cases.find_volume(trajectory))


def score_volume(trajectory: Trajectory, reward: str | Reward) -> list[rewards.RewardValue]:
    """Value a stored volume episode without a backbone; one value per step.

    Raises:
        EpisodeError: The record contradicts the rules of episodes.
        RewardError: The reward gave no finite number.
    """
    made, values = rewards.make(reward), []

    def pay(episode: VolumeEpisode) -> None:
        values.append(rewards.pay(made, episode))  # type: ignore[arg-type]
        episode.rewards.append(values[-1].value)

    rebuild_volume_episode(trajectory, on_step=pay)
    return values


def _prompted(
    state: VolumeState, prompt: SlicePrompt, mask: np.ndarray, truth: np.ndarray
) -> SliceState:
    now = state.slices.get(prompt.slice)
    box, points = (None, ()) if now is None else (now.box, now.points)
    if isinstance(prompt.prompt, AddBox):
        return SliceState.stored(mask, truth, prompt.prompt, points)
    return SliceState.stored(mask, truth, box, (*points, prompt.prompt))


def _propagated(state: VolumeState, mask: np.ndarray, truth: np.ndarray) -> VolumeState:
    kept = {i: state.slices[i] for i in state.prompted}
    filled = {
        int(i): SliceState.stored(mask[i], truth[i])
        for i in np.flatnonzero(mask.any(axis=(1, 2)))
        if i not in kept
    }
    slices = {**kept, **filled}
    return VolumeState(
        MappingProxyType(slices),
        sum(one.pixels for one in slices.values()),
        sum(one.intersection for one in slices.values()),
    )
