"""From case records to the rows of a table, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.failed_cases import FailedCase, failure_notes, lost_subsets
from medseg_agents.evaluation.options import CALL_COSTS
from medseg_agents.evaluation.stopping import stopping_table, summarise_stopping
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.palette import line_look
from medseg_gym.display.plots import drawing, fold, legend_below
from medseg_gym.display.terminal import Table
from medseg_gym.episodes import metrics
from medseg_gym.statistics import bootstrap_interval
from medseg_gym.storage.atomic_write import atomic_path

NOC_PERCENTS = (80, 85, 90)
"""IoU, in percent, that NoC is counted to."""

UNITS = ("mm", "px")
"""Of distances; see `CaseRecord.unit`."""


def summarise(
    records: Sequence[CaseRecord],
    max_steps: int,
    failed: Sequence[FailedCase] = (),
    call_costs: Sequence[float] = CALL_COSTS,
    /,
    **labels: str,
) -> dict[str, Any]:
    """One table row: means over the cases that were played, intervals by group.

    Args:
        records: Of one policy and backbone, at least one.
        max_steps: Dice is given after 0..max_steps steps.
        failed: Cases that were not played; they are counted, and a note says so.
        call_costs: Prices of a call in `stopping`.
        **labels: Put first, e.g. `policy="random"`.

    Returns:
        Labels, then `n`, `failed`, `groups`, `dice`, `dice_interval`, `iou`, `iou_interval`,
        `dice_after` (list), `later_gain` and `later_gain_interval` (final Dice minus that after the
        first step, paired by case), `turns`, `invalid`, `cut_off` (steps lost to answers that were
        cut off, in all), `episode_return`, `seconds`; of the final masks `boundary_iou` and, for
        each unit u of "mm" (cases with a spacing) and "px" (the others), `cases_u`, `nsd_u` and
        `hd95_u` with `hd95_u_n`, the number of cases it is defined for (None where there are none);
        of the way there `noc80`, `failures80`, likewise 85 and 90, `dice_auc` and `stop_regret`;
        `stopping` (see `summarise_stopping`) and `notes`.
    """
    groups = [record.group for record in records]

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(records)

    dice = [record.dice[-1] for record in records]
    iou = [record.iou[-1] for record in records]
    later = [record.dice[-1] - record.dice_after(1) for record in records]
    notes = dict.fromkeys(note for record in records for note in record.notes)
    return {
        **labels,
        "n": len(records),
        "failed": len(failed),
        "groups": len(set(groups)),
        "dice": mean(dice),
        "dice_interval": bootstrap_interval(dice, groups),
        "iou": mean(iou),
        "iou_interval": bootstrap_interval(iou, groups),
        "dice_after": [mean(r.dice_after(k) for r in records) for k in range(max_steps + 1)],
        "later_gain": mean(later),
        "later_gain_interval": bootstrap_interval(later, groups),
        "turns": mean(record.turns for record in records),
        "invalid": mean(record.invalid for record in records),
        "cut_off": sum(record.cut_off for record in records),
        "episode_return": mean(record.episode_return for record in records),
        "seconds": mean(record.seconds for record in records),
        **_surface_means(records),
        "boundary_iou": mean(record.boundary_iou for record in records),
        **_interaction_means(records, max_steps),
        "stopping": summarise_stopping(records, max_steps, call_costs),
        "notes": [*notes, *_absent_targets(records), *failure_notes(records, failed)],
    }


def _absent_targets(records: Sequence[CaseRecord]) -> list[str]:
    """Say how many slices of volumes do not show the target: an empty mask scores 1 there."""
    without = sum(bool(record.volume) and not record.area for record in records)
    return [f"{without} of {len(records)} slices without the target"] if without else []


def _surface_means(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Means by unit, for millimetres and pixels do not mix."""
    means: dict[str, Any] = {}
    for unit in UNITS:
        members = [record for record in records if record.unit == unit]
        distances = [record.hd95 for record in members if record.hd95 is not None]
        means[f"cases_{unit}"] = len(members)
        means[f"hd95_{unit}"] = sum(distances) / len(distances) if distances else None
        means[f"hd95_{unit}_n"] = len(distances)
        means[f"nsd_{unit}"] = (
            sum(record.nsd for record in members) / len(members) if members else None
        )
    return means


def _interaction_means(records: Sequence[CaseRecord], max_steps: int) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for percent in NOC_PERCENTS:
        clicks = [metrics.noc(record.iou, percent / 100, max_steps) for record in records]
        means[f"noc{percent}"] = sum(noc.turns for noc in clicks) / len(records)
        means[f"failures{percent}"] = sum(noc.failed for noc in clicks)
    areas = [metrics.dice_auc(record.dice, max_steps) for record in records]
    means["dice_auc"] = sum(areas) / len(records)
    means["stop_regret"] = sum(metrics.stop_regret(record.dice) for record in records) / len(
        records
    )
    return means


def summarise_by(
    records: Sequence[CaseRecord],
    by: str,
    max_steps: int,
    failed: Sequence[FailedCase] = (),
    call_costs: Sequence[float] = CALL_COSTS,
    /,
    **labels: str,
) -> list[dict[str, Any]]:
    """Rows for all records and for each value of `by` ("modality", "group" or "target").

    A subset that is the whole is not repeated. One of which every case failed has no row; the note
    of the whole names it.
    """
    rows = []
    values = list(dict.fromkeys(getattr(record, by) for record in records))
    if len({getattr(one, by) for one in (*records, *failed)}) != 1:
        rows.append(summarise(records, max_steps, failed, call_costs, **labels, subset="all"))
        rows[0]["notes"] += lost_subsets(records, failed, by)
    for value in values:
        members = [record for record in records if getattr(record, by) == value]
        lost = [one for one in failed if getattr(one, by) == value]
        row = summarise(members, max_steps, lost, call_costs, **labels, subset=value or "unknown")
        rows.append(row)
    return rows


def as_tables(rows: Sequence[Mapping[str, Any]], title: str, max_steps: int) -> list[Table]:
    """Rich tables of summary rows: scores, Dice after each step, other metrics, and stopping."""
    scores = Table(keys=3, title=title)
    steps = Table(keys=3, title=f"{title}: mean Dice after each step")
    returns = stopping_table(rows, title)
    units = [unit for unit in UNITS if any(row[f"cases_{unit}"] for row in rows)]
    title = f"{title}: borders of the final masks, and the way to them"
    distances = Table(keys=3, title=title, padding=(0, 1, 0, 0))  # many columns: close together
    for table in (scores, steps, distances):
        for header in ("backbone", "policy", "subset"):
            table.add_column(header, no_wrap=True)
    for header in ("n", "groups", "Dice [95 %]", "IoU [95 %]", "turns", "return", "s/case"):
        scores.add_column(header, justify="right", no_wrap=True)
    scores.add_column("note")
    for step in range(max_steps + 1):
        steps.add_column(str(step), justify="right", no_wrap=True)
    steps.add_column("end - 1st [95 %]", justify="right", no_wrap=True)
    tolerance = f"{metrics.NSD_TOLERANCE:g}"
    for header in (
        *(f"HD95 {unit}\n(n of N)" for unit in units),
        *(f"NSD\n{tolerance} {unit}" for unit in units),
        "bIoU",
        *(f"NoC@{percent}\n(fail)" for percent in NOC_PERCENTS),
        "AUC",
        "regret",
    ):
        distances.add_column(header, justify="right", no_wrap=True)
    distances.caption = (
        "HD95 (n of N): mean over the n of N cases where neither mask is empty, or both are. "
        f"NSD: tolerance {tolerance} {f' or {tolerance} '.join(units)}. bIoU: boundary IoU. "
        f"NoC: turns to reach that IoU, {max_steps} if it never came (fail: such cases). "
        "AUC: of Dice against turns. regret: best Dice minus the final one."
    )
    previous = ("", "")
    for row in rows:
        current = row["backbone"], row["policy"]
        if previous != ("", "") and current != previous:
            for table in (scores, steps, distances):
                table.add_section()
        name = ("", "") if current == previous else current
        previous = current
        scores.add_row(
            *name,
            row["subset"],
            str(row["n"]),
            str(row["groups"]),
            with_interval(row["dice"], row["dice_interval"]),
            with_interval(row["iou"], row["iou_interval"]),
            f"{row['turns']:.2f}",
            f"{row['episode_return']:.3f}",
            f"{row['seconds']:.2f}",
            ", ".join(row["notes"]),
        )
        steps.add_row(
            *name,
            row["subset"],
            *(f"{value:.3f}" for value in row["dice_after"]),
            with_interval(row["later_gain"], row["later_gain_interval"]),
        )
        distances.add_row(
            *name,
            row["subset"],
            *(_distance(row, unit) for unit in units),
            *("-" if row[f"nsd_{u}"] is None else f"{row[f'nsd_{u}']:.3f}" for u in units),
            f"{row['boundary_iou']:.3f}",
            *(f"{row[f'noc{p}']:.2f} ({row[f'failures{p}']})" for p in NOC_PERCENTS),
            f"{row['dice_auc']:.3f}",
            f"{row['stop_regret']:.3f}",
        )
    return [scores, steps, distances, returns]


def _distance(row: Mapping[str, Any], unit: str) -> str:
    """Write "4.20 (11/12)": over how many of the cases with that unit the mean goes."""
    cases, defined, mean = row[f"cases_{unit}"], row[f"hd95_{unit}_n"], row[f"hd95_{unit}"]
    if not cases:
        return "-"
    return f"{'-' if mean is None else f'{mean:.2f}'} ({defined}/{cases})"


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write summary rows flat: intervals as two columns, Dice per step and stopping as one each."""
    flat = []
    for row in rows:
        entry: dict[str, Any] = {}
        for key, value in row.items():
            if key.endswith("_interval"):
                low, high = value or ("", "")
                entry[f"{key[:-9]}_low"], entry[f"{key[:-9]}_high"] = low, high
            elif key == "dice_after":
                entry.update({f"dice_after_{k}": dice for k, dice in enumerate(value)})
            elif key == "stopping":
                for line in value:
                    entry |= _flat_stopping(line)
            elif key == "notes":
                entry[key] = "; ".join(value)
            else:
                entry[key] = value
        flat.append(entry)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat[0]))
        writer.writeheader()
        writer.writerows(flat)


def _flat_stopping(line: Mapping[str, Any]) -> dict[str, Any]:
    """Name the numbers of one price of a call, e.g. `best_limit_at_0.01`."""
    price = f"_at_{line['call_cost']:g}"
    entry: dict[str, Any] = {}
    for name in ("episode_return", "best_limit_return", "best_limit", "best_stop_return"):
        entry[f"{name}{price}"] = line[name]
        if f"{name}_interval" in line:
            low, high = line[f"{name}_interval"] or ("", "")
            entry[f"{name}{price}_low"], entry[f"{name}{price}_high"] = low, high
    return entry


@drawing()
def plot_dice_by_step(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw Dice against steps, one panel per backbone, one line per policy, whole set only."""
    from matplotlib.figure import Figure

    whole: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        whole.setdefault(row["backbone"], {}).setdefault(row["policy"], row)
    columns = min(len(whole), 4)
    rows_of_panels = -(-len(whole) // columns)
    size = (max(5.2, 4.6 * columns), 3.8 * rows_of_panels)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows_of_panels, columns, sharey=True, squeeze=False)
    for panel in panels.ravel()[len(whole) :]:
        panel.set_axis_off()
    names = list(dict.fromkeys(policy for policies in whole.values() for policy in policies))
    drawn: dict[str, tuple[Any, list[str]]] = {}
    for panel, (backbone, policies) in zip(panels.ravel(), whole.items(), strict=False):
        for policy, row in policies.items():
            look = line_look(names.index(policy))
            if "oracle" in row["notes"]:
                look["linestyle"] = "--"
            (line,) = panel.plot(row["dice_after"], markersize=3.5, linewidth=1.2, **look)
            notes = drawn.setdefault(policy, (line, []))[1]
            notes += [one for one in row["notes"] if one != "oracle" and one not in notes]
        panel.set_title(fold(backbone, 48), fontsize=9)
        panel.set(xlabel="steps", ylim=(-0.02, 1.02))
        panel.grid(alpha=0.3)
    for row_of_panels in panels:
        row_of_panels[0].set_ylabel("mean Dice")
    legend_below(figure, [(line, ", ".join([n, *notes])) for n, (line, notes) in drawn.items()])
    figure.suptitle(fold(f"{title}; dashed: oracles", int(size[0] * 15)), fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
