"""Advantages of turns: within groups of episodes of one case, or from values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SPREAD = 1e-4
"""Added to a spread before dividing by it, as in GRPO's usual implementations."""


@dataclass(frozen=True)
class GroupFigures:
    """What the groups of an iteration looked like.

    Args:
        spread: Mean standard deviation of returns within a group.
        flat: Share of groups whose returns are all the same: nothing is learned from them.
    """

    spread: float
    flat: float


def group_advantages(
    rewards: Sequence[Sequence[float]], groups: Sequence[int], scale: bool = True
) -> tuple[list[np.ndarray], GroupFigures]:
    """GRPO (Shao et al. 2024, section 4.1.2): the return less the group's mean, for every turn.

    Args:
        rewards: By episode, one per turn.
        groups: Group of each episode.
        scale: Divide by the group's standard deviation.

    Returns:
        By episode, one advantage per turn, float32; and figures.

    Raises:
        ValueError: A group of one episode.
    """
    returns = np.array([sum(episode) for episode in rewards], float)
    members = _members(groups)
    found = np.zeros(len(rewards))
    for member in members:
        found[member] = returns[member] - returns[member].mean()
        if scale:
            found[member] /= returns[member].std() + _SPREAD
    turns = [np.full(len(r), a, np.float32) for r, a in zip(rewards, found, strict=True)]
    return turns, _figures(returns, members)


def group_to_go(
    rewards: Sequence[Sequence[float]], groups: Sequence[int], scale: bool = True
) -> tuple[list[np.ndarray], GroupFigures]:
    """What came from a turn on, less the mean of that over the group's episodes that got so far.

    What an episode had gained before a turn is no merit of that turn and no noise in it. The first
    turn's advantage is that of `group_advantages`; a turn that only one episode reached is compared
    with nothing and gets 0. Arguments and returns are those of `group_advantages`.
    """
    returns = np.array([sum(episode) for episode in rewards], float)
    members = _members(groups)
    found = [np.zeros(len(episode), np.float32) for episode in rewards]
    for member in members:
        unit = returns[member].std() + _SPREAD if scale else 1.0
        for turn in range(max(len(rewards[i]) for i in member)):
            there = [i for i in member if len(rewards[i]) > turn]
            to_go = np.array([sum(rewards[i][turn:]) for i in there], float)
            for i, value in zip(there, (to_go - to_go.mean()) / unit, strict=True):
                found[i][turn] = value
    return found, _figures(returns, members)


def turn_gae(
    rewards: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) over turns, not tokens.

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
        found = np.zeros(len(reward), np.float32)
        last, after = 0.0, 0.0
        for turn in reversed(range(len(reward))):
            last = reward[turn] + gamma * after - value[turn] + gamma * lam * last
            after = value[turn]
            found[turn] = last
        advantages.append(found)
        targets.append(found + np.asarray(value, np.float32))
    return advantages, targets


def _members(groups: Sequence[int]) -> list[np.ndarray]:
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    if min(map(len, members)) < 2:
        raise ValueError("a group of one episode has nothing to be compared with: was it cut?")
    return members


def _figures(returns: np.ndarray, members: Sequence[np.ndarray]) -> GroupFigures:
    spreads = np.array([returns[member].std() for member in members])
    return GroupFigures(float(spreads.mean()), float((spreads < 1e-6).mean()))
