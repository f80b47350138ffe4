"""Calls after the first, and what these gain, where the first went well and where it did not.

A policy that sees its mask goes on where the mask is poor, and stops where it is good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_gym.display.palette import line_look
from medseg_gym.display.plots import drawing, legend_below
from medseg_gym.statistics import bootstrap_interval
from medseg_gym.storage.atomic_write import atomic_path

PARTS = 5
"""Parts of equal size that a policy's cases are divided into."""


def calls_by_difficulty(records: Sequence[CaseRecord]) -> list[dict[str, Any]]:
    """Divide cases by their Dice after the first action; poorest first.

    Args:
        records: Of one policy.

    Returns:
        Per part: `cases`, and means of `first` (Dice after the first action), `calls` (boxes and
        clicks) and `gain` (Dice at the end less `first`), the last two with an `_interval` of 95 %
        that resamples groups, None with few of them.
    """
    ordered = sorted(records, key=lambda record: (record.dice_after(1), record.case))
    rows = []
    for part in np.array_split(np.arange(len(ordered)), min(PARTS, len(ordered))):
        members = [ordered[place] for place in part]
        groups = [record.group for record in members]
        row: dict[str, Any] = {"cases": len(members)}
        row["first"] = float(np.mean([record.dice_after(1) for record in members]))
        for name, values in (
            ("calls", [float(record.prompts) for record in members]),
            ("gain", [record.dice[-1] - record.dice_after(1) for record in members]),
        ):
            row[name] = float(np.mean(values))
            row[f"{name}_interval"] = bootstrap_interval(values, groups, 2000)
        rows.append(row)
    return rows


@drawing()
def plot_calls_used(
    records: Mapping[str, Sequence[CaseRecord]], path: Path, title: str
) -> dict[str, list[dict[str, Any]]]:
    """Draw calls and gain against Dice after the first action, one line a policy.

    Args:
        records: By the name of a policy.
        path: Of the PNG.
        title: Above it.

    Returns:
        What is drawn: `calls_by_difficulty` of every policy.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    drawn, lines = {}, []
    for number, (name, members) in enumerate(records.items()):
        drawn[name] = rows = calls_by_difficulty(members)
        first = [row["first"] for row in rows]
        for panel, key in zip(panels, ("calls", "gain"), strict=True):
            look = line_look(number)
            (line,) = panel.plot(first, [row[key] for row in rows], linewidth=1.2, **look)
            for row in rows:
                if row[f"{key}_interval"] is not None:
                    spread = row[f"{key}_interval"]
                    panel.plot([row["first"]] * 2, spread, color=look["color"], linewidth=0.8)
        lines.append((line, name))
    panels[0].set_ylabel("boxes and clicks")
    panels[1].set_ylabel("Dice at the end less that")
    panels[1].axhline(0, color="black", linewidth=0.8)
    for panel in panels:
        panel.set(xlabel="Dice after the first action, fifths of the cases", xlim=(-0.02, 1.02))
        panel.grid(alpha=0.3)
    legend_below(figure, lines)
    figure.suptitle(title, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return drawn
