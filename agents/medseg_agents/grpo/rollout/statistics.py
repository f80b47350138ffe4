"""Statistics of the episodes that an iteration played, under the names of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg_agents.grpo.metrics import LENGTH, REWARD, SUMMARY
from medseg_agents.llm.engine import Completion
from medseg_gym.episodes import Episode, EpisodeSummary, Step
from medseg_gym.prompts import TOOLS

NO_SPREAD = 1e-6
"""A group whose standard deviation is below this has none."""

INVALID_KINDS = ("cut", "no_call", "unknown_tool", "arguments", "rule")
"""Reason why a turn changed nothing; see `invalid_kind`."""

_NO_CALL = ("no <tool_call>", "the thought was not closed", "thinking is not allowed")


def invalid_kind(step: Step, cut: bool) -> str:
    """Return why a turn changed nothing, "" for one that did what its tool does.

    Args:
        step: The turn.
        cut: Its completion ran into the limit of tokens.

    Returns:
        "cut": the completion ran into its limit before it held a readable call; "no_call": it held
        none; "unknown_tool"; "arguments": a call whose arguments cannot be read; "rule": a call
        that was read but may not be made now, as an undo with nothing to undo.
    """
    if step.valid:
        return ""
    if step.prompt is not None:
        return "rule"
    if cut:
        return "cut"
    if step.error.startswith(_NO_CALL):
        return "no_call"
    return "unknown_tool" if step.error.startswith("unknown tool") else "arguments"


@dataclass(frozen=True, kw_only=True)
class EpisodeStatistics:
    """Numbers of one episode that are averaged over an iteration's; no masks, no images."""

    group: int
    """Number of its group."""

    summary: Mapping[str, float]
    """Fields of `EpisodeSummary` by their name in RLlib's results."""

    terms: Mapping[str, float]
    """Terms of the reward, each summed over its turns."""

    dice: tuple[float, ...]
    """Dice after each turn."""

    tools: tuple[str, ...]
    """Tool of each turn's call, "" where none could be read."""

    invalid: tuple[str, ...]
    """See `invalid_kind`, of each turn."""

    lengths: tuple[int, ...]
    """Tokens of each turn's completion, the one that ends it included."""

    clipped: int
    """Completions that ran into the limit of tokens."""

    @classmethod
    def of(
        cls,
        group: int,
        episode: Episode,
        rewards: Sequence[float],
        terms: Mapping[str, float],
        completions: Sequence[Completion],
    ) -> EpisodeStatistics:
        """Reduce an episode that is over.

        Args:
            group: Number of its group.
            episode: The episode.
            rewards: One per turn, those before a branch included.
            terms: Of the reward, summed over its turns.
            completions: One per turn of the episode's own, not of those before a branch.
        """
        summary = EpisodeSummary.of(episode, rewards=rewards)
        own = episode.steps[len(episode.steps) - len(completions) :]
        turns = list(zip(own, completions, strict=True))
        return cls(
            group=group,
            summary={name: float(getattr(summary, field)) for name, field in SUMMARY.items()},
            terms=dict(terms),
            dice=tuple(step.dice for step in episode.steps),
            tools=tuple(step.tool for step in own),
            invalid=tuple(invalid_kind(step, completion.cut) for step, completion in turns),
            lengths=tuple(len(completion.tokens) for completion in completions),
            clipped=sum(completion.cut for completion in completions),
        )


def play_metrics(
    episodes: Sequence[EpisodeStatistics], max_steps: int, tools: Sequence[str] = TOOLS
) -> dict[str, float]:
    """Return the metrics of an iteration's episodes; `docs/reference/metrics.md` defines each.

    Args:
        episodes: At least one, of whole groups.
        max_steps: Turns that an episode may have.
        tools: Those of the environment, whose use is counted.
    """
    metrics = {
        name: float(np.mean([episode.summary[name] for episode in episodes])) for name in SUMMARY
    }
    metrics |= _term_metrics(episodes)
    metrics |= _length_metrics(episodes)
    metrics |= _call_metrics(episodes, tools)
    for turn in range(max_steps):
        # An episode that is over keeps its last mask: every mean is over the same cases.
        values = [episode.dice[min(turn, len(episode.dice) - 1)] for episode in episodes]
        metrics[f"dice/after_call_{turn + 1}"] = float(np.mean(values))
    return metrics


def _term_metrics(episodes: Sequence[EpisodeStatistics]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    sizes = Counter(episode.group for episode in episodes)
    for name in sorted({name for episode in episodes for name in episode.terms}):
        values = np.array([episode.terms.get(name, 0.0) for episode in episodes])
        metrics[f"{REWARD}{name}/mean"] = float(values.mean())
        metrics[f"{REWARD}{name}/std"] = float(values.std())
        if max(sizes.values()) > 1:
            groups = np.array([episode.group for episode in episodes])
            spreads = np.array([values[groups == group].std() for group in sizes])
            metrics[f"{REWARD}{name}/group_std"] = float(spreads.mean())
            metrics[f"{REWARD}{name}/frac_zero_std"] = float((spreads < NO_SPREAD).mean())
    return metrics


def _length_metrics(episodes: Sequence[EpisodeStatistics]) -> dict[str, float]:
    lengths = [length for episode in episodes for length in episode.lengths]
    return {
        f"{LENGTH}mean": float(np.mean(lengths)),
        f"{LENGTH}min": float(np.min(lengths)),
        f"{LENGTH}max": float(np.max(lengths)),
        f"{LENGTH}clipped_ratio": sum(one.clipped for one in episodes) / len(lengths),
    }


def _call_metrics(episodes: Sequence[EpisodeStatistics], known: Sequence[str]) -> dict[str, float]:
    tools = Counter(tool for episode in episodes for tool in episode.tools)
    kinds = Counter(kind for episode in episodes for kind in episode.invalid)
    turns = tools.total()
    return {
        "calls": (turns - tools[""]) / len(episodes),
        **{f"tool_use/{tool}": tools[tool] / turns for tool in known},
        **{f"invalid/{kind}": kinds[kind] / turns for kind in INVALID_KINDS},
    }
