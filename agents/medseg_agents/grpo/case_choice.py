"""Choice of the cases that an iteration plays: all in turn, or those that teach the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg_agents.grpo.connectors import GROUP
from medseg_agents.grpo.rollout.statistics import NO_SPREAD
from medseg_gym.errors import MedSegError

FLOOR = 0.05
"""Least weight of a case in a curriculum, so that none is forgotten; the largest is 0.25."""

MEMORY = 0.5
"""Share of the old success rate that stays when a case was played again."""


@dataclass(frozen=True)
class Group:
    """Episodes of one case.

    Args:
        number: Of the group in the whole run; seeds its draws.
        key: Of the case.
    """

    number: int
    key: str


class CaseChoice:
    """Deals cases to groups, reproducibly.

    Without a curriculum every case is dealt once in a random order, then all in another. With one a
    case is drawn with a probability proportional to p(1 - p) + `FLOOR`, where p is its success rate
    in the groups that played it lately: the variance of success, which is what a group-relative
    advantage can learn from (learnability; Foster and Foerster 2025, "Learning to reason at the
    frontier of learnability"). A case that was not played yet counts as p = 1/2.

    Args:
        keys: Of the cases.
        seed: Of the run.
        curriculum: "none" or "success".
        success_dice: Final Dice from which an episode succeeds.
    """

    def __init__(
        self,
        keys: Sequence[str],
        seed: int = 0,
        curriculum: str = "none",
        success_dice: float = 0.8,
    ) -> None:
        self.keys, self.seed, self.success_dice = tuple(keys), seed, success_dice
        self.curriculum = curriculum
        self.dealt = 0
        self.rates: dict[str, float] = {}
        self._order: tuple[int, np.ndarray] | None = None

    def deal(self, count: int) -> list[Group]:
        """Return the next groups of the run.

        Args:
            count: How many.
        """
        numbers = range(self.dealt, self.dealt + count)
        self.dealt += count
        if self.curriculum == "none":
            return [Group(number, self._in_turn(number)) for number in numbers]
        weights = np.array([self.weight(key) for key in self.keys])
        drawn = []
        for number in numbers:
            generator = np.random.default_rng([self.seed, 1, number])
            place = generator.choice(len(self.keys), p=weights / weights.sum())
            drawn.append(Group(number, self.keys[int(place)]))
        return drawn

    def weight(self, key: str) -> float:
        """Return the weight of a case, FLOOR to FLOOR + 0.25."""
        rate = self.rates.get(key, 0.5)
        return rate * (1 - rate) + FLOOR

    def observe(self, key: str, dice: Sequence[float]) -> None:
        """Take note of the final Dice of a group's episodes.

        Args:
            key: Of the case.
            dice: Of each episode.
        """
        rate = float(np.mean([one >= self.success_dice for one in dice]))
        before = self.rates.get(key, rate)
        self.rates[key] = MEMORY * before + (1 - MEMORY) * rate

    def metrics(self) -> dict[str, float]:
        """Return what the log keeps of a curriculum; nothing without one."""
        if self.curriculum == "none" or not self.rates:
            return {}
        rates = np.array(list(self.rates.values()))
        return {
            "curriculum/cases_seen": float(len(rates)),
            "curriculum/success_rate": float(rates.mean()),
            "curriculum/learnable": float((rates * (1 - rates) > FLOOR).mean()),
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, JSON."""
        return {"dealt": self.dealt, "rates": self.rates}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state.

        Raises:
            MedSegError: It is none.
        """
        try:
            self.dealt = int(state["dealt"])
            self.rates = {str(k): float(v) for k, v in dict(state["rates"]).items()}
        except (KeyError, TypeError, ValueError) as error:
            raise MedSegError(f"the checkpoint's choice of cases is damaged: {error}") from None

    def _in_turn(self, number: int) -> str:
        passed, place = divmod(number, len(self.keys))
        if self._order is None or self._order[0] != passed:
            generator = np.random.default_rng([self.seed, passed, len(self.keys)])
            self._order = passed, generator.permutation(len(self.keys))
        return self.keys[int(self._order[1][place])]


def whole_groups(episodes: Sequence[Any], size: int) -> dict[int, list[Any]]:
    """Return the episodes of each group that came back whole, by its number.

    Args:
        episodes: Of RLlib, with the number of their group.
        size: Episodes of a group.
    """
    groups: dict[int, list[Any]] = {}
    for episode in episodes:
        groups.setdefault(episode.custom_data[GROUP], []).append(episode)
    return {number: members for number, members in groups.items() if len(members) == size}


def has_spread(members: Sequence[Any]) -> bool:
    """Return whether the returns of a group's episodes differ, so that they can be compared."""
    return float(np.std([one.get_return() for one in members])) >= NO_SPREAD
