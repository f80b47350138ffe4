"""Rewards put together from their terms by weights of the run, and terms normalised one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medseg_agents.grpo.advantages.groups import _EPS, GroupStatistics
from medseg_agents.grpo.objective.over_learners import OverLearners
from medseg_gym.errors import MedSegError, nearest

Compare = Callable[..., tuple[list[np.ndarray], GroupStatistics]]
"""`group_advantages` or another of its kind."""

StepTerms = Sequence[Sequence[Mapping[str, float]]]
"""By episode and turn, the terms of the reward by name."""


def weighted_rewards(terms: StepTerms, weights: Mapping[str, float]) -> list[list[float]]:
    """Return the reward of every turn as the weighted sum of its terms.

    Args:
        terms: Of each turn, before the reward's own weights.
        weights: By term; terms without one do not count.

    Returns:
        By episode, one reward per turn.

    Raises:
        MedSegError: A weight of a term that the reward does not have.
    """
    _require(terms, weights)
    return [
        [sum(weight * turn.get(name, 0.0) for name, weight in weights.items()) for turn in episode]
        for episode in terms
    ]


def normalize_then_sum(
    terms: StepTerms,
    weights: Mapping[str, float],
    groups: Sequence[int],
    compare: Compare,
    learners: OverLearners,
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute GDPO's advantages (2026, arXiv 2601.05242): every term is normalised by itself.

    Each term is compared within its group and divided by its own spread there, so that a term with
    a large spread does not drown the others; the weighted sum is divided by its spread over all
    episodes of the iteration, which is taken of their first turns. (Its mean is 0 already.)

    Args:
        terms: Of each turn, before the reward's own weights.
        weights: By term.
        groups: Group of each episode.
        compare: How the episodes of a group are compared.
        learners: Over whose episodes the iteration goes.

    Returns:
        By episode, one advantage per turn, float32; and statistics of the weighted returns.
    """
    _, statistics = compare(weighted_rewards(terms, weights), groups, "none")
    total: list[np.ndarray] = [np.zeros(len(episode)) for episode in terms]
    for name, weight in weights.items():
        alone, _ = compare([[t.get(name, 0.0) for t in one] for one in terms], groups, "group")
        total = [before + weight * part for before, part in zip(total, alone, strict=True)]
    _, spread = learners.mean_and_std([float(episode[0]) for episode in total])
    return [(part / (spread + _EPS)).astype(np.float32) for part in total], statistics


def _require(terms: StepTerms, weights: Mapping[str, float]) -> None:
    known = {name for episode in terms for turn in episode for name in turn}
    for name in weights:
        if name not in known:
            raise MedSegError(
                f"reward_weights: the reward has no term {name!r}{nearest(name, sorted(known))}; "
                f"it has: {', '.join(sorted(known))}"
            )
