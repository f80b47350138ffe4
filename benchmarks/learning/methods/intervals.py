"""An interval of a mean over seeds and cases, honest with three seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t

from medseg_gym.errors import MedSegError
from medseg_gym.statistics import MIN_GROUPS


def hierarchical_interval(
    values: np.ndarray, groups: Sequence[str], level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of the mean for other seeds and other cases than these.

    The variance of the mean is the sum of two: that of the seeds' means, by the number of seeds;
    and that of the cases' means, by groups of cases (their sums are independent, one image's cases
    are not). The factor is Student's, with Satterthwaite's degrees of freedom: with three seeds
    that differ it is near 4.3, where resampling three seeds would call every fourth difference of
    nothing but noise a difference. What seeds and cases have in common counts twice, so that the
    interval is rather too wide.

    Args:
        values: One per seed and case, S x N.
        groups: Of each case, N.
        level: Coverage asked for.

    Returns:
        (low, high), or None with a single seed or fewer than `MIN_GROUPS` groups.

    Raises:
        MedSegError: A value that is not finite.
    """
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
    variance = of_seeds + of_cases
    if variance == 0:
        return mean, mean
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_cases**2 / (len(names) - 1))
    half = float(t.ppf((1 + level) / 2, freedom)) * variance**0.5
    return mean - half, mean + half
