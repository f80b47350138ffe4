"""Value stored episodes with another reward: no backbone, and exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg_gym.episodes import rewards
from medseg_gym.episodes.rewards import Reward
from medseg_gym.prompts import Stop
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.volumes import score_volume
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import Trajectory


@dataclass(frozen=True)
class Rescored:
    """An episode and its new rewards.

    Args:
        old: As stored.
        new: The same with the new rewards and terms.
    """

    old: Trajectory
    new: Trajectory


def rescore_trajectory(trajectory: Trajectory, reward: str | Reward) -> Trajectory:
    """Value a trajectory's steps anew, from its masks and prompts alone.

    Raises:
        TrajectoryError: Its truth is not known.
    """
    if not trajectory.facts.truth_known:
        raise TrajectoryError(
            f"the truth of {trajectory.key.case!r} is not known, so no reward can be given; "
            "rescore_store leaves such episodes out"
        )
    if trajectory.facts.depth is not None:
        return _valued(trajectory, reward, score_volume(trajectory, reward))
    masks = [
        mask
        for mask, prompt in zip(trajectory.masks, trajectory.prompts, strict=True)
        if not isinstance(prompt, Stop)
    ]
    max_steps = trajectory.facts.options.get("max_steps")
    prompts: list[Any] = trajectory.prompts  # those of an image
    values = rewards.score_episode(reward, masks, trajectory.truth, prompts, max_steps=max_steps)
    return _valued(trajectory, reward, values)


def _valued(
    trajectory: Trajectory, reward: str | Reward, values: Sequence[rewards.RewardValue]
) -> Trajectory:
    steps = tuple(
        replace(
            step, reward=float(value.value), terms={k: float(v) for k, v in value.terms.items()}
        )
        for step, value in zip(trajectory.steps, values, strict=True)
    )
    name = reward if isinstance(reward, str) else repr(reward)
    options = {**trajectory.facts.options, "reward": name}
    return replace(trajectory, steps=steps, facts=replace(trajectory.facts, options=options))


def rescore_store(
    store: TrajectoryStore, reward: str | Reward, out: str | Path | None = None
) -> Iterator[Rescored]:
    """Value every finished episode of a store anew; those without a known truth are left out.

    Args:
        store: To read.
        reward: Name for `rewards.make`, or a Reward.
        out: Folder of a store that gets the episodes with their new rewards.

    Yields:
        Every episode, old and new.

    Raises:
        MedSegError: Unknown reward.
        EpisodeError: A record contradicts the rules of episodes.
    """
    rewards.make(reward)
    writer = None if out is None else TrajectoryWriter(out)
    try:
        for old in store:
            if not old.facts.truth_known:
                continue
            new = rescore_trajectory(old, reward)
            if writer is not None:
                id = writer.begin(new.facts)
                verdicts = [*[None] * (len(new.steps) - 1), new.accepted]
                writer.add([(id, step) for step in new.steps], verdicts)
            yield Rescored(old, new)
    finally:
        if writer is not None:
            writer.close()
