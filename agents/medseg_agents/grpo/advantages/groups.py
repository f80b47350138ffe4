"""Advantages from the returns of other episodes: of one case, or of the whole iteration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg_agents.grpo.objective.over_learners import OverLearners

_EPS = 1e-4
"""Added to a spread before dividing by it, as in GRPO's usual implementations."""

_ALONE = OverLearners()


@dataclass(frozen=True)
class GroupStatistics:
    """Returns within the groups of an iteration.

    Args:
        group_reward_std: Mean standard deviation of returns within a group.
        frac_reward_zero_std: Share of groups whose returns are all the same: nothing is learned
            from them.
    """

    group_reward_std: float
    frac_reward_zero_std: float

    @classmethod
    def of(cls, returns: np.ndarray, members: Sequence[np.ndarray]) -> GroupStatistics:
        """Compute from the returns, (E,), and the episodes of each group."""
        spreads = np.array([returns[member].std() for member in members])
        return cls(float(spreads.mean()), float((spreads < 1e-6).mean()))


def group_advantages(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[int],
    scale: str = "group",
    learners: OverLearners = _ALONE,
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute GRPO's advantages (Shao et al. 2024, section 4.1.2), the same for all turns.

    The advantage is the return less the mean of the group's returns, the episode's own among them.

    Args:
        rewards: By episode, one per turn.
        groups: Group of each episode.
        scale: Divide by the standard deviation of the returns of the "group", of all the iteration
            ("batch"), or not ("none").
        learners: Over whose episodes the iteration goes.

    Returns:
        By episode, one advantage per turn, float32; and statistics.

    Raises:
        ValueError: A group of one episode.
    """
    returns, members = _returns(rewards), _members(groups)
    advantages = np.zeros(len(rewards))
    for member in members:
        advantages[member] = returns[member] - returns[member].mean()
    advantages /= _units(returns, members, scale, learners)
    return _for_all_turns(rewards, advantages), GroupStatistics.of(returns, members)


def leave_one_out(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[int],
    scale: str = "group",
    learners: OverLearners = _ALONE,
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute RLOO's advantages (Ahmadian et al. 2024, eq. 6), the same for all turns.

    The advantage is the return less the mean return of the group's *other* episodes. These do not
    depend on what the episode does, so the gradient is unbiased (with `scale` "none": a spread does
    contain the episode). Arguments and returns are those of `group_advantages`.
    """
    returns, members = _returns(rewards), _members(groups)
    advantages = np.zeros(len(rewards))
    for member in members:
        advantages[member] = returns[member] - _mean_of_others(returns[member])
    advantages /= _units(returns, members, scale, learners)
    return _for_all_turns(rewards, advantages), GroupStatistics.of(returns, members)


def batch_advantages(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[int],
    scale: str = "batch",
    learners: OverLearners = _ALONE,
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute REINFORCE++'s advantages (Hu et al. 2025, section 3), the same for all turns.

    The advantage is the return less the mean of all returns of the iteration, by their standard
    deviation unless `scale` is "none". A group may be a single episode. Arguments and returns are
    those of `group_advantages`.
    """
    returns, members = _returns(rewards), _members(groups, least=1)
    mean, spread = learners.mean_and_std(returns)
    advantages = (returns - mean) / (1.0 if scale == "none" else spread + _EPS)
    return _for_all_turns(rewards, advantages), GroupStatistics.of(returns, members)


def reward_to_go(
    rewards: Sequence[Sequence[float]],
    groups: Sequence[int],
    scale: str = "group",
    learners: OverLearners = _ALONE,
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute advantages from group-relative rewards-to-go, the baseline leaving one out.

    The advantage of a turn is the sum of rewards from it on, less the mean of that over the group's
    *other* episodes that reached the turn; where none did, less 0, which is what episodes that have
    ended earn from there on. What an episode had gained before a turn is no merit of that turn and
    no noise in it. The baseline depends on other episodes alone, so with `scale` "none" the
    gradient is unbiased. (A mean that contains the episode itself shrinks advantages by 1 - 1/k
    where k episodes reached the turn: late turns, reached by few, would count for less, and one
    that a single episode reached for nothing.) The first turn's advantage is that of
    `leave_one_out`. Arguments and returns are those of `group_advantages`.
    """
    returns, members = _returns(rewards), _members(groups)
    units = _units(returns, members, scale, learners)
    advantages = [np.zeros(len(episode), np.float32) for episode in rewards]
    for member in members:
        for turn in range(max(len(rewards[i]) for i in member)):
            there = [i for i in member if len(rewards[i]) > turn]
            to_go = np.array([sum(rewards[i][turn:]) for i in there], float)
            compared = to_go - _mean_of_others(to_go)
            for i, value in zip(there, compared, strict=True):
                advantages[i][turn] = value / units[i]
    return advantages, GroupStatistics.of(returns, members)


def _returns(rewards: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([sum(episode) for episode in rewards], float)


def _for_all_turns(rewards: Sequence[Sequence[float]], advantages: np.ndarray) -> list[np.ndarray]:
    return [np.full(len(r), a, np.float32) for r, a in zip(rewards, advantages, strict=True)]


def _mean_of_others(values: np.ndarray) -> np.ndarray:
    """For each of (n,) values the mean of the others; 0 for a value that is alone."""
    return (values.sum() - values) / max(1, len(values) - 1) if len(values) > 1 else 0 * values


def _units(
    returns: np.ndarray, members: Sequence[np.ndarray], scale: str, learners: OverLearners
) -> np.ndarray:
    """Return the divisor of each episode's advantage, (E,)."""
    if scale == "none":
        return np.ones(len(returns))
    if scale == "batch":
        return np.full(len(returns), learners.mean_and_std(returns)[1] + _EPS)
    units = np.zeros(len(returns))
    for member in members:
        units[member] = returns[member].std() + _EPS
    return units


def _members(groups: Sequence[int], least: int = 2) -> list[np.ndarray]:
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    if min(map(len, members)) < least:
        raise ValueError("a group of one episode has nothing to be compared with: was it cut?")
    return members
