"""Numbers as tables show them."""

from __future__ import annotations


def with_interval(mean: float, interval: tuple[float, float] | None, sign: str = "") -> str:
    """Write "0.912 [0.890, 0.934]", or the mean alone where there are too few groups.

    Args:
        mean: Of the cases.
        interval: Low and high end.
        sign: "+" shows the sign of positive numbers too, as differences want it.
    """
    text = f"{mean:{sign}.3f}"
    if interval is None:
        return text
    low, high = interval
    return f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"
