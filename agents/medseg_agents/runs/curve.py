"""Draw how a run learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_agents.runs.log import read_progress
from medseg_gym.display.palette import GREY, LINES, line_look
from medseg_gym.display.plots import drawing, fold, legend_below
from medseg_gym.storage.atomic_write import atomic_path


def plot_run(folder: Path) -> None:
    """Write `curve.png` of one run into its folder."""
    plot_curves({folder.name: read_progress(folder)}, folder / "curve.png")


@drawing()
def plot_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw runs together: Dice while exploring, Dice on validation cases, actions per episode.

    Args:
        runs: Rows of `progress.jsonl` by name.
        path: Of the PNG.
        levels: Dice to draw as dashed lines, by name: of baselines and oracles.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    looks = [_look(number) for number in range(len(runs))]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("dice", "final Dice while exploring"),
        ("val/dice", "Dice on validation cases; dotted: after the first action"),
        ("turns", "actions per episode while exploring"),
    )
    for panel, (key, title) in zip(axes, panels, strict=True):
        for number, rows in enumerate(runs.values()):
            look = looks[number]
            _draw(panel, rows, key, **look)
            if key == "val/dice":
                _draw(panel, rows, "val/first_dice", **{**look, "linestyle": ":"})
        if "dice" in key:
            panel.set_ylim(-0.02, 1.0)
            for name, level in (levels or {}).items():
                panel.axhline(level, linestyle="--", color=GREY, linewidth=0.8)
                # Beside the panel, where no curve runs.
                panel.annotate(
                    fold(name, 24, 1),
                    (1.01, level),
                    xycoords=("axes fraction", "data"),
                    fontsize=6,
                    va="center",
                )
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("environment steps")
        panel.grid(alpha=0.3)
    if len(runs) > 1:
        lines = [Line2D([], [], **look) for look in looks]
        legend_below(figure, list(zip(lines, runs, strict=True)))
    else:
        figure.suptitle(fold(next(iter(runs), ""), 150, 1), fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _look(number: int) -> dict[str, Any]:
    look = line_look(number)
    if number < len(LINES):  # colours alone tell so many apart, and curves have many points
        look["marker"] = ""
    return {**look, "markersize": 3, "markevery": 0.1, "linewidth": 1}


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], key: str, **look: Any) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        panel.plot(*zip(*points, strict=True), **look)
