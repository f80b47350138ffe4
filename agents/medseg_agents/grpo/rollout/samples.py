"""Sampled conversations with their images, as tables for the log of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg_agents.grpo.rollout.statistics import invalid_kind
from medseg_agents.llm.engine import Completion
from medseg_agents.runs.trackers.protocol import Table
from medseg_gym.episodes import Episode

TABLE = "samples"
_COLUMNS = (
    *("group", "case", "target", "turn", "image", "shown", "completion"),
    *("tool", "invalid", "reward", "dice", "return"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledTurn:
    """One turn: what the model was shown, what it answered, and what came of it."""

    shown: str
    """Text of the user's turn."""

    image: np.ndarray
    """Images of the user's turn, H x W x 3 uint8; of several, side by side."""

    completion: str
    """The model's completion, without the token that ends it."""

    tool: str
    """Tool of the call, "" where none could be read."""

    invalid: str
    """Reason why it changed nothing, see `invalid_kind`, with the error that the model was told; ""
    for a valid call."""

    reward: float
    """Of the turn."""

    dice: float
    """Afterwards."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledConversation:
    """An episode of training as it was seen by the model."""

    group: int
    """Number of its group in the run."""

    case: str
    """Key of the case."""

    target: str
    """Target that was to be segmented."""

    turns: tuple[SampledTurn, ...]
    """In order."""

    @classmethod
    def of(
        cls,
        group: int,
        episode: Episode,
        seen: Any,
        completions: Sequence[Completion],
        image_keys: Sequence[str] = ("image",),
    ) -> SampledConversation:
        """Keep an episode that is over.

        Args:
            group: Number of its group.
            episode: As the engine holds it; its masks are not kept.
            seen: The same as RLlib's `SingleAgentEpisode`: observations and rewards.
            completions: One per turn of the episode's own, not of those before a branch.
            image_keys: Entries of an observation that are the images of a turn, in order.
        """
        observations, rewards = seen.get_observations(), seen.get_rewards()
        turns = []
        own = episode.steps[len(episode.steps) - len(completions) :]
        for number, (step, completion) in enumerate(zip(own, completions, strict=True)):
            kind, shown = invalid_kind(step, completion.cut), observations[number]
            turns.append(
                SampledTurn(
                    shown=str(shown["text"]),
                    image=_beside([shown[key] for key in image_keys]),
                    completion=completion.text,
                    tool=step.tool,
                    invalid=f"{kind}: {step.error}" if kind else "",
                    reward=float(rewards[number]),
                    dice=float(step.dice),
                )
            )
        case = episode.case
        return cls(group=group, case=case.key, target=case.target, turns=tuple(turns))


def _beside(images: Sequence[np.ndarray]) -> np.ndarray:
    """Put images side by side, aligned at the top; a single one is returned as it is."""
    if len(images) == 1:
        return images[0]
    height = max(len(image) for image in images)
    fitted = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0))) for one in images]
    return np.concatenate(fitted, axis=1)


def sample_table(samples: Sequence[SampledConversation]) -> Table:
    """Return one row per turn.

    Args:
        samples: The conversations.
    """
    rows = []
    for sample in samples:
        whole = sum(turn.reward for turn in sample.turns)
        rows += [
            (
                *(sample.group, sample.case, sample.target, number, turn.image, turn.shown),
                *(turn.completion, turn.tool, turn.invalid, turn.reward, turn.dice, whole),
            )
            for number, turn in enumerate(sample.turns, 1)
        ]
    return Table(_COLUMNS, tuple(rows))


def newest_samples(algo: Any, count: int) -> list[SampledConversation]:
    """Return conversations of the newest iteration, from as many runners as that takes.

    Args:
        algo: The algorithm.
        count: At most so many; a runner keeps `runner.SAMPLES`.
    """
    remote = algo.env_runner_group.num_remote_workers() > 0
    samples: list[SampledConversation] = []
    for one in algo.env_runner_group.foreach_env_runner(
        lambda runner: runner.newest_samples()[:count], local_env_runner=not remote
    ):
        samples += one
    return samples[:count]
