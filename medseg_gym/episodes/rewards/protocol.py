"""The Reward protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from medseg_gym.episodes.episode import Episode


class RewardValue(NamedTuple):
    """Reward of one step and the terms it is made of, which `info` reports."""

    value: float
    terms: Mapping[str, float]


class Reward(Protocol):
    """Called once after every step, with the step recorded; holds no state of its own.

    The terms have the same names in every step. The term "cost", where given, becomes
    `info["cost"]`.
    """

    def __call__(self, episode: Episode) -> RewardValue | float:
        """Value the newest step of an episode; a number alone is a value without terms."""
        ...
