"""Means with honest intervals: cases of one patient, volume or image are resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < MIN_GROUPS:
        return None
    sums = np.bincount(member, weights=np.asarray(values, float))
    counts = np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
