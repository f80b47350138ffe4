"""Reward functions for TRL: the suite's own return of each rollout, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from medseg_agents.trl.environment import SegmentationEnvironment
from medseg_agents.trl.outcome import log_outcomes
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.prompts import write_call


def episode_return(
    completions: Sequence[Sequence[dict[str, Any]]],
    environments: Sequence[SegmentationEnvironment],
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float]:
    """Return of each rollout that was played with `make_environment`.

    TRL ends a conversation when an answer holds no call that it can read, and at its own limit of
    turns. So the last answer is made good first: calls that TRL read but no longer
    executed are executed, and an answer without a call is refused, which costs what it costs in
    `MedSegChat-v0`. Neither happens in an episode that is over.

    Args:
        completions: Messages of each rollout.
        environments: The environment of each, as TRL gives them.
        log_metric: Given by TRL; gets the means that `log_outcomes` lists.
        **kwargs: Whatever else TRL passes; not looked at.

    Raises:
        PolicyError: The segmenter failed in a rollout; TRL would have gone on.
    """
    for messages, environment in zip(completions, environments, strict=True):
        _finish(messages, environment)
    outcomes = [environment.outcome for environment in environments]
    log_outcomes(outcomes, log_metric)
    return [outcome.episode_return for outcome in outcomes]


def _finish(messages: Sequence[dict[str, Any]], environment: SegmentationEnvironment) -> None:
    if environment.over or not messages or messages[-1]["role"] != "assistant":
        return
    calls = messages[-1].get("tool_calls") or []
    for call in calls:
        environment._play(write_call(call["function"]["name"], call["function"].get("arguments")))
    if not calls:
        environment._play("")


def rollout_return(
    prompts: Sequence[str],
    outcome: Sequence[EpisodeSummary],
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float]:
    """Return of each rollout that `ChatRollout` played.

    Args:
        prompts: One per rollout.
        outcome: As `ChatRollout` gives it.
        log_metric: Given by TRL; gets the means that `log_outcomes` lists.
        **kwargs: Whatever else TRL passes; not looked at.
    """
    log_outcomes(outcome, log_metric)
    return [summary.episode_return for summary in outcome]
