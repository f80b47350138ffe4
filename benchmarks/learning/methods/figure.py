"""The figure of the comparison: differences to the start and to the default, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_gym.display.plots import drawing


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
