"""Generalised advantage estimates over turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def turn_gae(
    rewards: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    gamma: float = 1.0,
    lam: float = 0.95,
    after: Sequence[float] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Compute generalised advantages (Schulman et al. 2016, eq. 16) over turns, not tokens.

    An episode that terminated earns nothing more. One that an outer limit truncated would have gone
    on: what it would have earned is estimated by the value of the state it was left in.

    Args:
        rewards: By episode, one per turn.
        values: Likewise, before each turn.
        gamma: Discount.
        lam: Lambda.
        after: By episode, the value after its last turn; 0 where it terminated. None is 0 for all.

    Returns:
        Advantages and value targets, by episode, float32, one per turn.
    """
    advantages, targets = [], []
    beyond = [0.0] * len(rewards) if after is None else after
    for reward, value, bootstrap in zip(rewards, values, beyond, strict=True):
        estimates = np.zeros(len(reward), np.float32)
        last, following = 0.0, float(bootstrap)
        for turn in reversed(range(len(reward))):
            last = reward[turn] + gamma * following - value[turn] + gamma * lam * last
            following = value[turn]
            estimates[turn] = last
        advantages.append(estimates)
        targets.append(estimates + np.asarray(value, np.float32))
    return advantages, targets
