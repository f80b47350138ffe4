"""Weighted sums of rewards: `DiceGain() + 0.2 * Format()`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from medseg_gym.episodes.episode import Episode
from medseg_gym.episodes.rewards.pay import pay, reward_name
from medseg_gym.episodes.rewards.protocol import Reward, RewardValue
from medseg_gym.errors import MedSegError


class ComposableReward(ABC):
    """Gives a reward `+`, `-` and `*` with a number.

    The other side of a sum may be any Reward, a plain function too.

    Attributes:
        name: What its terms are prefixed with where names collide in a mixture.
    """

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Refuse settings that would make every reward NaN or infinite.

        Raises:
            MedSegError: Of a dataclass, a number that is not finite.
        """
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise MedSegError(
                    f"reward {self.name or type(self).__name__!r}: {name} must be finite, "
                    f"got {value}"
                )

    @abstractmethod
    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step of an episode."""

    def __add__(self, other: Reward) -> Mixture:
        return Mixture((*parts_of(self), *parts_of(other))) if callable(other) else NotImplemented

    def __radd__(self, other: Reward) -> Mixture:
        return Mixture((*parts_of(other), *parts_of(self))) if callable(other) else NotImplemented

    def __mul__(self, weight: float) -> Mixture:
        if not isinstance(weight, Real):
            return NotImplemented
        return Mixture(tuple((float(weight) * own, part) for own, part in parts_of(self)))

    __rmul__ = __mul__

    def __neg__(self) -> Mixture:
        return self * -1.0

    def __sub__(self, other: Reward) -> Mixture:
        if not callable(other):
            return NotImplemented
        return self + Mixture(parts_of(other)) * -1.0

    def __rsub__(self, other: Reward) -> Mixture:
        return Mixture(parts_of(other)) + self * -1.0 if callable(other) else NotImplemented


@dataclass(frozen=True)
class Mixture(ComposableReward):
    """A weighted sum of rewards.

    Terms keep their raw, unweighted values in `info`, so that a term means the same in every
    mixture; only "cost" is weighted and added up, for it is what the step cost. A term that
    several parts have is shown once for each, as "medsam_agent/format" and "format/format"; parts
    of one name are numbered ("dice_gain/dice_gain", "dice_gain_2/dice_gain").

    Args:
        parts: Pairs of a finite weight and a reward.

    Raises:
        MedSegError: No parts, or a weight that is not finite.
    """

    parts: tuple[tuple[float, Reward], ...]

    def __post_init__(self) -> None:
        if not self.parts or not all(math.isfinite(weight) for weight, _ in self.parts):
            raise MedSegError(f"a mixture needs parts with finite weights, got {self.parts}")

    def __call__(self, episode: Episode) -> RewardValue:
        """Value the newest step."""
        values = [pay(reward, episode) for _, reward in self.parts]
        weights = [weight for weight, _ in self.parts]
        seen = Counter(term for value in values for term in value.terms)
        terms: dict[str, float] = {}
        for name, value in zip(self._names(), values, strict=True):
            for term, number in value.terms.items():
                if term != "cost":
                    terms[term if seen[term] == 1 else f"{name}/{term}"] = number
        if "cost" in seen:
            costs = (value.terms.get("cost", 0.0) for value in values)
            terms["cost"] = sum(w * cost for w, cost in zip(weights, costs, strict=True))
        total = sum(w * value.value for w, value in zip(weights, values, strict=True))
        return RewardValue(total, terms)

    def _names(self) -> list[str]:
        names: list[str] = []
        met: Counter[str] = Counter()
        for _, reward in self.parts:
            name = reward_name(reward)
            met[name] += 1
            names.append(name if met[name] == 1 else f"{name}_{met[name]}")
        return names


def parts_of(reward: Reward) -> tuple[tuple[float, Reward], ...]:
    """The parts of a mixture; any other reward is one part of weight 1."""
    return reward.parts if isinstance(reward, Mixture) else ((1.0, reward),)
