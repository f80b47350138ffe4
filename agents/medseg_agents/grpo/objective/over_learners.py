"""Sums over all learners, so that several learn what one would."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class OverLearners:
    """Sums over the learners of a run; every learner must ask for the same sums in the same order.

    Args:
        count: Learners; with one, nothing is sent.
        device: That the process group sends from.
    """

    def __init__(self, count: int = 1, device: torch.device | str = "cpu") -> None:
        self.count, self._device = max(1, count), device

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return each number summed over all learners."""
        if self.count == 1:
            return [float(value) for value in values]
        total = torch.tensor(list(values), dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def mean_and_std(self, values: Sequence[float] | np.ndarray) -> tuple[float, float]:
        """Return mean and standard deviation (of the population) of all learners' numbers.

        Args:
            values: (n,) of this learner.
        """
        own = np.asarray(values, float)
        count, total = self.sum([len(own), own.sum()])
        mean = total / max(1.0, count)
        (squares,) = self.sum([((own - mean) ** 2).sum()])
        return mean, float(np.sqrt(squares / max(1.0, count)))
