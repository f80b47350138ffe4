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


def interval_over_runs(values: np.ndarray, groups: Sequence[str]) -> tuple[float, float] | None:
    """Return an interval of the mean for other seeds and cases; of one seed for other cases alone.

    Args:
        values: One per seed and case, S x N.
        groups: Of each case, N.

    Returns:
        Of `hierarchical_interval`, or with a single seed of `bootstrap_interval`.
    """
    if len(values) > 1:
        return hierarchical_interval(values, groups)
    return bootstrap_interval(values[0].tolist(), groups)


def hierarchical_interval(
    values: np.ndarray, groups: Sequence[str], level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of the mean for other seeds and other cases than these.

    Its half width is the root of the sum of two squares: that of the interval from the seeds'
    means alone, and that from the cases' means alone, by groups of cases, both Student's (the
    recovery of variances, Zou and Donner 2008). With three seeds that differ the factor is 4.3,
    where resampling three seeds would call every fourth difference of nothing but noise a
    difference. What seeds and cases have in common counts twice: the interval is rather too wide.

    Args:
        values: One per seed and case, S x N.
        groups: Of each case, N.
        level: Coverage asked for.

    Returns:
        (low, high), or None with a single seed or fewer than `MIN_GROUPS` groups.

    Raises:
        MedSegError: A value that is not finite.
    """
    from scipy.stats import t

    if not np.isfinite(values).all():
        seed, case = np.argwhere(~np.isfinite(values))[0]
        raise MedSegError(
            f"an interval is made of finite values alone; seed {seed} has {values[seed, case]} for "
            f"case {case} (group {groups[case]!r})"
        )
    seeds, cases = values.shape
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if seeds < 2 or len(names) < MIN_GROUPS:
        return None
    mean = float(values.mean())
    of_seeds = float(values.mean(axis=1).var(ddof=1)) / seeds
    sums = np.bincount(member, weights=values.mean(axis=0) - mean)
    of_cases = float((sums**2).sum()) / cases**2 * len(names) / (len(names) - 1)
    quantile = (1 + level) / 2
    squares = float(
        t.ppf(quantile, seeds - 1) ** 2 * of_seeds + t.ppf(quantile, len(names) - 1) ** 2 * of_cases
    )
    return mean - squares**0.5, mean + squares**0.5
