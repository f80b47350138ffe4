"""The curve of `benchmarks.learning.tiny_rl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from medseg_agents.runs.log import read_progress

from benchmarks.learning.tiny_rl.runs import TITLES, folder_of
from medseg_gym.display.plots import drawing, labelled, legend_below


@drawing()
def plot_curve(out: Path, seeds: Sequence[int], path: Path) -> None:
    """Draw returns while exploring and on validation cases against CPU minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, method in enumerate(("grpo", "ppo")):
        for seed in seeds:
            rows = read_progress(folder_of(out, method, seed))
            look: dict[str, Any] = {"color": f"C{number}", "linewidth": 1}
            label = TITLES[method] if seed == seeds[0] else None
            for panel, key, window in ((left, "return", 5), (right, "val/return", 1)):
                points = [(row["cpu_seconds"] / 60, row[key]) for row in rows if key in row]
                if len(points) >= window:
                    smooth = running_mean(points, window)
                    panel.plot(*zip(*smooth, strict=True), label=label, **look)
    left.set(xlabel="CPU minutes", ylabel="return while exploring, mean of 5")
    right.set(xlabel="CPU minutes", ylabel="greedy return, validation cases")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    legend_below(figure, labelled(figure))
    figure.savefig(path, dpi=130)


def running_mean(points: Sequence[tuple[float, float]], wide: int) -> list[tuple[float, float]]:
    """Return (place, mean of the values of so many points up to there).

    Args:
        points: (place, value), in order; at least `wide`.
        wide: Points of a mean.
    """
    values = np.convolve([value for _, value in points], np.ones(wide) / wide, "valid")
    return [(place, float(v)) for (place, _), v in zip(points[wide - 1 :], values, strict=True)]
