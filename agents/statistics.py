"""Intervals of means, as the whole suite gives them: see `medseg_gym.statistics`."""

from medseg_gym.statistics import MIN_GROUPS, bootstrap_interval

__all__ = ["MIN_GROUPS", "bootstrap_interval"]
