"""Means with honest intervals: cases of one patient, volume or image are resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gym.errors import MedSegError

MIN_GROUPS = 5
"""With fewer groups than this an interval would pretend to knowledge: there is none."""


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str],
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of the mean, resampling whole groups (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: One per case.
        groups: The group of each case.
        resamples: How many.
        level: Coverage asked for, e.g. 0.95.
        seed: Of the resampling.

    Returns:
        (low, high), or None with fewer than `MIN_GROUPS` groups.

    Raises:
        MedSegError: A value that is not finite, or a level outside of (0, 1).
    """
    numbers = np.asarray(values, float)
    if not np.isfinite(numbers).all():
        first = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise MedSegError(
            f"an interval is made of finite values alone, got {numbers[first]} as value {first} "
            f"(group {groups[first]!r}); leave such cases out and say how many"
        )
    if not 0 < level < 1:
        raise MedSegError(f"level must be between 0 and 1, got {level}")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < MIN_GROUPS:
        return None
    sums = np.bincount(member, weights=numbers)
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
