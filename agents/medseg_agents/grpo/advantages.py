"""Advantages of turns: within groups of episodes of one case, or from values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EPS = 1e-4
"""Added to a spread before dividing by it, as in GRPO's usual implementations."""


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


def group_advantages(
    rewards: Sequence[Sequence[float]], groups: Sequence[int], scale: bool = True
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute GRPO's advantages (Shao et al. 2024, section 4.1.2), the same for all turns.

    The advantage is the return less the mean of the group's returns.

    Args:
        rewards: By episode, one per turn.
        groups: Group of each episode.
        scale: Divide by the group's standard deviation.

    Returns:
        By episode, one advantage per turn, float32; and statistics.

    Raises:
        ValueError: A group of one episode.
    """
    returns = np.array([sum(episode) for episode in rewards], float)
    members = _members(groups)
    advantages = np.zeros(len(rewards))
    for member in members:
        advantages[member] = returns[member] - returns[member].mean()
        if scale:
            advantages[member] /= returns[member].std() + _EPS
    turns = [np.full(len(r), a, np.float32) for r, a in zip(rewards, advantages, strict=True)]
    return turns, _statistics(returns, members)


def reward_to_go(
    rewards: Sequence[Sequence[float]], groups: Sequence[int], scale: bool = True
) -> tuple[list[np.ndarray], GroupStatistics]:
    """Compute advantages from group-relative rewards-to-go.

    The advantage of a turn is the sum of rewards from it on, less the mean of that over the group's
    episodes that reached the turn. What an episode had gained before a turn is no merit of that
    turn and no noise in it. The first turn's advantage is that of `group_advantages`; a turn that
    only one episode reached is compared with nothing and gets 0. Arguments and returns are those of
    `group_advantages`.
    """
    returns = np.array([sum(episode) for episode in rewards], float)
    members = _members(groups)
    advantages = [np.zeros(len(episode), np.float32) for episode in rewards]
    for member in members:
        unit = returns[member].std() + _EPS if scale else 1.0
        for turn in range(max(len(rewards[i]) for i in member)):
            there = [i for i in member if len(rewards[i]) > turn]
            to_go = np.array([sum(rewards[i][turn:]) for i in there], float)
            for i, value in zip(there, (to_go - to_go.mean()) / unit, strict=True):
                advantages[i][turn] = value
    return advantages, _statistics(returns, members)


def turn_gae(
    rewards: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Compute generalised advantages (Schulman et al. 2016, eq. 16) over turns, not tokens.

    Episodes are whole, so nothing is estimated beyond their end.

    Args:
        rewards: By episode, one per turn.
        values: Likewise, before each turn.
        gamma: Discount.
        lam: Lambda.

    Returns:
        Advantages and value targets, by episode, float32, one per turn.
    """
    advantages, targets = [], []
    for reward, value in zip(rewards, values, strict=True):
        estimates = np.zeros(len(reward), np.float32)
        last, after = 0.0, 0.0
        for turn in reversed(range(len(reward))):
            last = reward[turn] + gamma * after - value[turn] + gamma * lam * last
            after = value[turn]
            estimates[turn] = last
        advantages.append(estimates)
        targets.append(estimates + np.asarray(value, np.float32))
    return advantages, targets


def _members(groups: Sequence[int]) -> list[np.ndarray]:
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    if min(map(len, members)) < 2:
        raise ValueError("a group of one episode has nothing to be compared with: was it cut?")
    return members


def _statistics(returns: np.ndarray, members: Sequence[np.ndarray]) -> GroupStatistics:
    spreads = np.array([returns[member].std() for member in members])
    return GroupStatistics(float(spreads.mean()), float((spreads < 1e-6).mean()))
