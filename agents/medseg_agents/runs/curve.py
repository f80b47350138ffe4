"""Draw how a run learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_agents.runs.log import read_progress
from medseg_gym.display.plots import drawing, label


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

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("dice", "final Dice while exploring"),
        ("val/dice", "Dice on validation cases; dotted: after the first action"),
        ("turns", "actions per episode while exploring"),
    )
    for panel, (key, title) in zip(axes, panels, strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            look: dict[str, Any] = {"color": f"C{number % 10}", "linewidth": 1}
            _draw(panel, rows, key, label=label(name), **look)
            if key == "val/dice":
                _draw(panel, rows, "val/first_dice", linestyle=":", **look)
        if "dice" in key:
            panel.set_ylim(-0.02, 1.0)
            for name, level in (levels or {}).items():
                panel.axhline(level, linestyle="--", color="grey", linewidth=0.8)
                panel.annotate(name, (0, level), fontsize=6, va="bottom")
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("environment steps")
        panel.grid(alpha=0.3)
    axes[1].legend(fontsize=6)
    figure.savefig(path, dpi=130)


def _draw(panel: Any, rows: Sequence[Mapping[str, Any]], key: str, **look: Any) -> None:
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        panel.plot(*zip(*points, strict=True), **look)
