"""Figures of the comparison: differences with intervals, learning curves, Dice by call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.tiny_rl.curve import running_mean
from medseg_gym.display.palette import line_look
from medseg_gym.display.plots import drawing, legend_below


@drawing()
def plot_differences(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one line a method in two panels; dots are seeds, bars intervals of 95 %."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.28 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, other in zip(panels, ("start", "default"), strict=True):
        key = f"return_over_{other}"
        for place, row in enumerate(rows):
            if row[key] == "":
                continue
            low, high = row[f"{key}_low"], row[f"{key}_high"]
            certain = low != "" and not low <= 0 <= high
            colour = "C0" if certain else "0.55"
            if low != "":
                panel.plot([low, high], [place, place], color=colour, linewidth=2)
            panel.plot(row[key], place, "o", color=colour, markersize=6)
            seeds = [float(value) for value in row[f"{key}_by_seed"].split()]
            panel.plot(seeds, [place] * len(seeds), "|", color="black", markersize=7)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_xlabel(f"return less the {other}'s, held-out cases")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(rows)), [row["policy"] for row in rows])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=130)


@drawing()
def plot_learning(
    explored: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    dice: Mapping[str, Sequence[Sequence[float]]],
    path: Path,
) -> None:
    """Draw how returns rose, and Dice after each call; a line a method, thin ones its seeds.

    The few cases of an iteration differ in how hard they are: returns are means of four iterations,
    and of one where a method has fewer.

    Args:
        explored: (episodes played, mean return of those drawn) of every seed, by method.
        dice: Mean Dice of held-out cases after 1, 2, ... calls, of every seed, by method.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = []
    for number, (name, runs) in enumerate(dice.items()):
        look = {**line_look(number), "markersize": 4, "linewidth": 1.2}
        thin = {"color": look["color"], "linewidth": 0.5, "alpha": 0.4}
        smooth = [
            running_mean(points, 4 if len(points) > 4 else 1)
            for points in explored.get(name, ())
            if points
        ]
        for points in smooth:
            left.plot(*zip(*points, strict=True), **thin)
        if smooth:
            left.plot(*np.mean([s[: min(map(len, smooth))] for s in smooth], axis=0).T, **look)
        calls = range(1, len(runs[0]) + 1)
        (line,) = right.plot(calls, np.mean(runs, axis=0), **look)
        lines.append((line, name))
    left.set(xlabel="episodes played", ylabel="return while exploring, own rewards")
    right.set(xlabel="calls at most", ylabel="Dice, held-out cases")
    right.xaxis.get_major_locator().set_params(integer=True)
    for panel in (left, right):
        panel.grid(alpha=0.3)
    legend_below(figure, lines)
    figure.savefig(path, dpi=130)
