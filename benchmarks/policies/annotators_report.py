"""Results of the annotators benchmark as tables, CSV rows and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.display.numbers import with_interval
from medseg_gym.display.plots import drawing, labelled, legend_below
from medseg_gym.display.terminal import Table


def quality_table(
    rows: Sequence[Mapping[str, Any]], title: str, max_steps: int, min_iou: float
) -> Table:
    """One line per case source and policy."""
    table = Table(title=title)
    for header in ("cases", "policy"):
        table.add_column(header, no_wrap=True)
    turns = [f"Dice {k}" for k in range(1, max_steps + 1)]
    for header in ("n", *turns, "IoU [95 %]", f"IoU ≥ {min_iou:g}", "kept", "looks", "lengths 0-"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("note")
    for number, row in enumerate(rows):
        if number and row["backbone"] != rows[number - 1]["backbone"]:
            table.add_section()
        table.add_row(
            row["backbone"].partition(" on ")[2],
            row["policy"],
            str(row["n"]),
            *(f"{dice:.3f}" for dice in row["dice_after"][1:]),
            with_interval(row["iou"], row["iou_interval"]),
            f"{row['accepted']:.0%}",
            "" if row["kept"] is None else f"{row['kept']:.0%}",
            "" if row["looks"] is None else f"{row['looks']:.2f}",
            " ".join(f"{100 * share:.0f}" for share in row["lengths"]),
            ", ".join(row["notes"]),
        )
    table.caption = (
        "kept: share of clicks tried that passed the quality check; looks: tries per turn; "
        "lengths: % of episodes with 0, 1, 2, ... prompts"
    )
    return table


def difference_table(rows: Sequence[Mapping[str, Any]], max_steps: int) -> Table:
    """Paired differences per turn, and what they allow to say."""
    table = Table(title="Dice at equal turns, difference case by case")
    for header in ("cases", "policy", "against"):
        table.add_column(header, no_wrap=True)
    for header in ("n", "groups", *(f"turn {k}" for k in range(1, max_steps))):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(f"turn {max_steps} [95 %]", justify="right", no_wrap=True)
    table.add_column("so it")
    for row in rows:
        table.add_row(
            row["cases"],
            row["policy"],
            row["against"],
            str(row["n"]),
            str(row["groups"]),
            *(f"{mean:+.3f}" for mean in row["means"][:-1]),
            f"{'+' * (row['means'][-1] >= 0)}"
            f"{with_interval(row['means'][-1], row['intervals'][-1])}",
            verdict(row),
        )
    return table


def verdict(row: Mapping[str, Any]) -> str:
    """Return the conclusion from the difference after the last turn."""
    interval = row["intervals"][-1]
    if interval is None:
        return f"{row['groups']} groups: no interval, nothing shown"
    if interval[0] > 0:
        return "beats it"
    return "does worse" if interval[1] < 0 else "does not beat it"


def time_table(rows: Sequence[Mapping[str, Any]], slots: int) -> Table:
    """An expert's own work beside a decode of all slots."""
    table = Table(title=f"seconds a turn, {slots} slots on the bundled real cases")
    for header in ("backbone", "policy"):
        table.add_column(header, no_wrap=True)
    for header in (
        "turn",
        "clicks tried a slot",
        "own work",
        "look-ahead decodes",
        "decode of all slots",
        "own work / decode",
    ):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            row["backbone"],
            row["policy"],
            str(row["turn"]),
            f"{row['looks']:.2f}",
            *(f"{row[key]:.3f}" for key in ("own", "ahead", "decode")),
            f"{row['own'] / row['decode']:.2f}",
        )
    return table


def flat(row: Mapping[str, Any], machine: str) -> dict[str, Any]:
    """A row for the CSV file: the lists that `write_csv` does not know, entry by entry."""
    entry: dict[str, Any] = {k: v for k, v in row.items() if k not in ("iou_after", "lengths")}
    for name in ("iou_after", "lengths"):
        entry.update({f"{name}_{k}": value for k, value in enumerate(row[name])})
    return {**entry, "machine": machine}


@drawing()
def plot_lengths(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw how many prompts episodes have, one panel per case source."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(row["backbone"] for row in rows))
    figure = Figure(figsize=(5 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    for panel, label in zip(axes, panels, strict=True):
        members = [row for row in rows if row["backbone"] == label]
        for number, row in enumerate(members):
            colour = f"C{policies.index(row['policy'])}"
            places = np.arange(len(row["lengths"])) + (number + 0.5) * 0.8 / len(members) - 0.4
            panel.bar(places, row["lengths"], 0.8 / len(members), color=colour, label=row["policy"])
        panel.set(title=label, xlabel="prompts in an episode")
    axes[0].set_ylabel("share of episodes")
    legend_below(figure, labelled(figure))
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=130)
