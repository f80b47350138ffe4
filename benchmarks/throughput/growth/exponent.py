"""The exponent of a curve of cost against size, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000
_POINTS = 4
_TOLERANCE = 0.05


class Exponent(NamedTuple):
    """Of cost ~ size ** exponent, where the size is large.

    Attributes:
        value: Of the medians.
        low: End of the 95 % interval.
        high: Its other end.
    """

    value: float
    low: float
    high: float

    @property
    def above_linear(self) -> bool:
        """True if the whole interval lies above 1.05.

        Work that leaves a processor's caches as it grows costs some hundredths more a piece.
        """
        return self.low > 1 + _TOLERANCE


def fit_exponent(sizes: Sequence[float], costs: Sequence[Sequence[float]]) -> Exponent:
    """Fit a straight line to the logarithms of the largest sizes.

    What a call costs however small it is flattens a curve at its beginning: the exponent is that of
    its last `_POINTS` points, where it is greatest. The interval is a bootstrap over the turns of
    each point.

    Args:
        sizes: Ascending.
        costs: Per size, seconds of every turn.
    """
    last = slice(-_POINTS, None)
    x = np.log(np.asarray(sizes[last], float))
    turns = [np.asarray(of_size, float) for of_size in costs[last]]
    rng = np.random.default_rng(0)
    slopes = [
        _slope(x, [np.median(rng.choice(of_size, len(of_size))) for of_size in turns])
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return Exponent(_slope(x, [np.median(of_size) for of_size in turns]), float(low), float(high))


def _slope(x: np.ndarray, costs: Sequence[float]) -> float:
    return float(np.polyfit(x, np.log(costs), 1)[0])
