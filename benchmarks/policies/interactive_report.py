"""Results of the benchmark of interactive quality as tables, rows and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policies.interactive_tracks import Track
from medseg_gym.cases import Case
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.plots import drawing, labelled, legend_below
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import bootstrap_interval


def subsets(cases: Sequence[Case]) -> dict[str, list[int]]:
    """Positions of all cases, of each modality, and of each group where there are few."""
    members_by_name: dict[str, list[int]] = {"all": list(range(len(cases)))}
    modalities = list(dict.fromkeys(case.modality for case in cases))
    groups = list(dict.fromkeys(case.group for case in cases))
    if len(modalities) > 1:
        for name in modalities:
            members_by_name[name] = [i for i, case in enumerate(cases) if case.modality == name]
    if 1 < len(groups) <= 8:
        for name in groups:
            members_by_name[name] = [i for i, case in enumerate(cases) if case.group == name]
    return members_by_name


def summarise_curves(
    spec: str, tracks: Sequence[Track], cases: Sequence[Case], steps: int
) -> list[dict[str, Any]]:
    """One row per backbone, way and subset: mean Dice after 0..steps prompts."""
    rows = []
    for track in tracks:
        after = np.array([track.dice(step) for step in range(steps + 1)])
        # Only the first prompt of a backbone that was trained for boxes alone means anything.
        last_step = 1 if track.note == "boxes only" else steps
        for name, members in subsets(cases).items():
            groups = [cases[i].group for i in members]
            last = after[last_step, members].tolist()
            rows.append(
                {
                    "cases": spec,
                    "way": track.way,
                    "backbone": track.backbone,
                    "subset": name,
                    "n": len(members),
                    "groups": len(set(groups)),
                    "dice_after": [float(v) for v in after[: last_step + 1, members].mean(1)],
                    "dice_interval": bootstrap_interval(last, groups),
                    "notes": [track.note] if track.note else [],
                }
            )
    return rows


def difference_rows(
    spec: str, tracks: Sequence[Track], cases: Sequence[Case], backbone: str, steps: int
) -> list[dict[str, Any]]:
    """Paired differences that say whether the backbone looks and whether it answers."""
    own = {track.way: track for track in tracks if track.backbone == backbone}
    rest = [track for track in tracks if track.backbone != backbone]
    pairs: list[tuple[str, list[float], list[float]]] = []
    for track in rest:
        steps_compared = (1, steps) if track.note != "boxes only" else (1,)
        for step in steps_compared:
            label = f"{_prompts(track.way, step)}: {backbone} - {track.backbone}"
            pairs.append((label, own[track.way].dice(step), track.dice(step)))
    clicks = own["clicks"]
    for step in range(2, steps + 1):
        label = f"click {step} - click {step - 1}: {backbone}"
        pairs.append((label, clicks.dice(step), clicks.dice(step - 1)))
    pairs.append((f"click {steps} - click 1: {backbone}", clicks.dice(steps), clicks.dice(1)))
    for way in ("box", "loose box"):
        label = f"{way} + 1 click - {way}: {backbone}"
        pairs.append((label, own[way].dice(2), own[way].dice(1)))
    rows = []
    for label, minuend, subtrahend in pairs:
        gaps = np.array(minuend) - np.array(subtrahend)
        for name, members in subsets(cases).items():
            groups = [cases[i].group for i in members]
            rows.append(
                {
                    "cases": spec,
                    "difference": label,
                    "subset": name,
                    "n": len(members),
                    "groups": len(set(groups)),
                    "mean": float(gaps[members].mean()),
                    "interval": bootstrap_interval(gaps[members].tolist(), groups),
                }
            )
    return rows


def _prompts(way: str, step: int) -> str:
    if way == "clicks":
        return f"{step} click{'s' * (step > 1)}"
    return way if step == 1 else f"{way} + {step - 1} clicks"


def curve_table(rows: Sequence[Mapping[str, Any]], title: str, steps: int) -> Table:
    """Mean Dice after each prompt."""
    table = Table(title=f"{title}: mean Dice after each prompt")
    for header in ("way", "backbone", "subset"):
        table.add_column(header, no_wrap=True)
    for header in ("n", "groups", *map(str, range(1, steps + 1)), "last [95 %]"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("note")
    for number, row in enumerate(rows):
        if number and row["way"] != rows[number - 1]["way"]:
            table.add_section()
        dice_cells = [f"{dice:.3f}" for dice in row["dice_after"][1:]]
        table.add_row(
            row["way"],
            row["backbone"],
            row["subset"],
            str(row["n"]),
            str(row["groups"]),
            *dice_cells,
            *[""] * (steps - len(dice_cells)),
            with_interval(row["dice_after"][-1], row["dice_interval"]),
            ", ".join(row["notes"]),
        )
    return table


def difference_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Paired differences; one line each, subsets in columns."""
    names = list(dict.fromkeys(row["subset"] for row in rows))
    table = Table(title=f"{title}: differences case by case")
    table.add_column("Dice", no_wrap=True)
    for name in names:
        table.add_column(name if name != "all" else "all [95 %]", justify="right", no_wrap=True)
    for label in dict.fromkeys(row["difference"] for row in rows):
        row_by_subset = {row["subset"]: row for row in rows if row["difference"] == label}
        shown = []
        for name in names:
            row = row_by_subset[name]
            sign = "+" * (row["mean"] >= 0)
            interval = row["interval"] if name == "all" else None
            shown.append(sign + with_interval(row["mean"], interval))
        table.add_row(label, *shown)
    return table


@drawing()
def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw Dice against prompts, one panel per way."""
    from matplotlib.figure import Figure

    whole = [row for row in rows if row["subset"] == "all"]
    ways = list(dict.fromkeys(row["way"] for row in whole))
    figure = Figure(figsize=(4.4 * len(ways), 3.8), layout="constrained")
    axes = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
    backbones = list(dict.fromkeys(row["backbone"] for row in whole))
    for panel, way in zip(axes, ways, strict=True):
        for row in (row for row in whole if row["way"] == way):
            control = any("control" in note for note in row["notes"])
            after = row["dice_after"][1:]
            style = "--" if control else "-"
            look = {"color": f"C{backbones.index(row['backbone'])}", "label": row["backbone"]}
            places = range(1, len(after) + 1)
            panel.plot(places, after, style, marker="o", markersize=3, **look)
        panel.set(title=way, xlabel="prompts", ylim=(0, 1))
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("mean Dice")
    legend_below(figure, labelled(figure))
    figure.suptitle(f"{title}; dashed: controls", fontsize=9)
    figure.savefig(path, dpi=130)
