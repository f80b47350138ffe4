"""Alerts in plain words: what a run's metrics say is going wrong, and the way out of it.

`docs/reference/metrics.md` lists them with their thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

WINDOW = 3
"""Rows whose mean is compared with a threshold, unless an alert says otherwise."""

NO_SPREAD, CUT, VALID_LEAST, VALID_FALL = 0.9, 0.1, 0.05, 0.5
ENTROPY_FALL, CRITIC_LEAST, CRITIC_ROWS = 0.1, 0.05, 10
MISMATCH = {"sampling/max_ratio_deviation": 0.5}
"""Greatest value that is not alerted, by metric of the mismatch of sampler and learner."""
KL = {"approx_kl": 0.1, "train/approx_kl": 0.1, "kl": 1.0}
"""Likewise of divergences, nats a token (array policies: an action)."""
EXPLAINED = ("explained_variance", "train/explained_variance")

Series = Mapping[str, Sequence[float]]
"""Values of each metric in the order of the rows that have it; NaN and infinity among them."""


@dataclass(frozen=True)
class Alert:
    """One thing that can go wrong.

    Args:
        name: Of the alert.
        read: Returns what is seen, in words, or "" where all is well.
        way_out: What to do about it.
    """

    name: str
    read: Callable[[Series], str]
    way_out: str


def active_alerts(series: Series) -> dict[str, str]:
    """Return the alerts that a history gives cause for, each with its text.

    Args:
        series: See `Series`.
    """
    texts = {}
    for alert in ALERTS:
        seen = alert.read(series)
        if seen:
            texts[alert.name] = f"{seen}. {alert.way_out}"
    return texts


def series_of(rows: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return rows as one list of values per metric."""
    series: dict[str, list[float]] = {}
    for row in rows:
        add_row(series, row)
    return series


def add_row(series: dict[str, list[float]], row: Mapping[str, float]) -> None:
    """Add the values of one row."""
    for name, value in row.items():
        series.setdefault(name, []).append(float(value))


def _newest(series: Series, name: str, count: int = WINDOW) -> float | None:
    """Mean of the newest values, None where there are too few or one is not finite."""
    values = series.get(name, ())[-count:]
    if len(values) < count or not all(map(math.isfinite, values)):
        return None
    return fmean(values)


def _no_spread(series: Series) -> str:
    share = _newest(series, "frac_reward_zero_std")
    if share is None or share < NO_SPREAD:
        return ""
    which = "all groups have" if share == 1 else f"{share:.0%} of groups have"
    return f"{which} equal reward: nothing is learned from them"


def _cut(series: Series) -> str:
    share = _newest(series, "completion_length/clipped_ratio")
    if share is None or share < CUT:
        return ""
    return f"{share:.0%} of completions ran into max_completion_length and were cut"


def _valid(series: Series) -> str:
    rate = _newest(series, "valid_rate")
    if rate is None:
        return ""
    if rate < VALID_LEAST:
        return f"{rate:.1%} of turns make a valid call"
    values = series["valid_rate"]
    means = [fmean(values[end - WINDOW : end]) for end in range(WINDOW, len(values) - WINDOW + 1)]
    best = max(means, default=0.0)
    if rate >= VALID_FALL * best:
        return ""
    return f"valid calls collapse: {rate:.0%} of turns make one, and it was {best:.0%}"


def _mismatch(series: Series) -> str:
    for name, limit in MISMATCH.items():
        value = _newest(series, name)
        if value is not None and value > limit:
            return f"sampler and learner disagree: {name} is {value:.3g}, above {limit:g}"
    return ""


def _entropy(series: Series) -> str:
    values = series.get("entropy", ())
    newest, start = _newest(series, "entropy"), values[:WINDOW]
    if newest is None or len(values) < 2 * WINDOW or not all(map(math.isfinite, start)):
        return ""
    before = fmean(start)
    if before <= 0 or newest >= ENTROPY_FALL * before:
        return ""
    return f"entropy collapses: {newest:.3g} nats a token, and it began at {before:.3g}"


def _kl(series: Series) -> str:
    for name, limit in KL.items():
        value = _newest(series, name)
        if value is not None and value > limit:
            return f"the policy moves too far: {name} is {value:.3g}, above {limit:g}"
    return ""


def _critic(series: Series) -> str:
    for name in EXPLAINED:
        value = _newest(series, name, CRITIC_ROWS)
        if value is not None and value < CRITIC_LEAST:
            return (
                f"values explain nothing: {name} is {value:.2f} over {CRITIC_ROWS} rows, so "
                "advantages are noise"
            )
    return ""


def _gradient(series: Series) -> str:
    values = series.get("grad_norm", ())
    if not values or math.isfinite(values[-1]):
        return ""
    return f"the gradient norm is {values[-1]}"


ALERTS = (
    Alert(
        "equal_rewards",
        _no_spread,
        "Raise temperature or num_generations, take cases that are neither solved nor hopeless, "
        "or start from a model that makes valid calls",
    ),
    Alert(
        "completions_cut",
        _cut,
        "Raise max_completion_length, or start from a model that answers with a call alone",
    ),
    Alert(
        "valid_calls",
        _valid,
        "Start from a supervised checkpoint; where it falls while training, lower the learning "
        "rate or raise beta",
    ),
    Alert(
        "mismatch",
        _mismatch,
        "Give sampler and learner the same precision (float32 is exact), and see that both have "
        "the newest weights",
    ),
    Alert(
        "entropy_collapse",
        _entropy,
        "Raise entropy, epsilon_high or temperature, or lower the learning rate",
    ),
    Alert(
        "kl",
        _kl,
        "Lower the learning rate, epochs or epsilon, or raise beta (array policies: set target_kl)",
    ),
    Alert(
        "critic",
        _critic,
        "Raise the value head's learning rate or value_weight, or give it a head start with "
        "critic_warmup",
    ),
    Alert(
        "gradient_norm",
        _gradient,
        "Lower the learning rate, or compute in float32",
    ),
)
"""In the order in which they are shown."""
