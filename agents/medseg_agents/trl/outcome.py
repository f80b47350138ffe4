"""Means of episodes that TRL logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medseg_gym.episodes import EpisodeSummary, mean_summary


def log_outcomes(
    outcomes: Sequence[EpisodeSummary], log_metric: Callable[[str, float], None] | None
) -> None:
    """Log means over a batch, under `medseg/`: return, dice, turns, valid_rate, stop_rate.

    Args:
        outcomes: At least one.
        log_metric: As TRL gives it to reward functions; None logs nothing.
    """
    if log_metric is None:
        return
    means = mean_summary(outcomes)
    log_metric("medseg/return", means["episode_return"])
    for name in ("dice", "turns", "valid_rate"):
        log_metric(f"medseg/{name}", means[name])
    log_metric("medseg/stop_rate", means["stopped"])
