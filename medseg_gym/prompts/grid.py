"""One rule for integers on a grid: fraction = (v + 0.5) / bins, v = floor(fraction * bins)."""

from __future__ import annotations

TOOL_CALL_BINS = 1000
"""Grid of the tool calls, and the default of the array action."""


def to_cell(fraction: float, bins: int) -> int:
    """Cell of a fraction in [0, 1], clipped to 0..bins-1."""
    return min(max(int(fraction * bins), 0), bins - 1)


def to_fraction(cell: int, bins: int) -> float:
    """Centre of a cell as a fraction in (0, 1)."""
    return (cell + 0.5) / bins
