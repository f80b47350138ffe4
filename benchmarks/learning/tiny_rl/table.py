"""The table and the curve of `benchmarks.learning.tiny_rl`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.evaluation.stopping import over_start, over_start_table, returns_after
from medseg_agents.policies.location_prior import location_prior
from medseg_agents.runs.log import read_progress
from rich.console import Console

from benchmarks.learning.tiny_rl.curve import plot_curve
from benchmarks.learning.tiny_rl.runs import METHODS, TITLES, folder_of
from benchmarks.learning.tiny_table import named
from benchmarks.shared.workers import worker_pool
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.output import showing
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import interval_over_runs
from medseg_gym.storage.atomic_write import atomic_write

_MODES = {"greedy": "", "sampled": "?temperature=1"}
_PAIRS = (("grpo", "start"), ("grpo", "sft"), ("ppo", "sft"), ("sft", "start"), ("grpo", "ppo"))


def make_table(
    chain: Path,
    out: Path,
    before: Any,
    sizes: Any,
    seeds: Sequence[int],
    cases: Mapping[str, int],
    workers: int,
    console: Console,
) -> None:
    """Play all policies, write result.json, result.csv and curve.png, and print the tables.

    Args:
        chain: Folder of the chain.
        out: Folder of the runs.
        before: The `Chain`.
        sizes: The `TinyRL`.
        seeds: Those that were trained.
        cases: Held-out cases that are played "greedy" and "sampled"; the rest of the table has
            those of the former.
        workers: Policies that play at once.
        console: To print on.
    """
    models = {("start", 0): chain / "sft" / "model"}
    models |= {(m, s): folder_of(out, m, s) / "model" for m in METHODS for s in seeds}
    labels: dict[tuple[str, int, str], str] = {}
    specs: dict[str, dict[str, str]] = {mode: {} for mode in _MODES}
    for (method, seed), model in models.items():
        for mode, options in _MODES.items():
            title = "SFT" if method == "start" else f"{TITLES[method]}, seed {seed}"
            labels[method, seed, mode] = label = f"{title}, {mode}"
            specs[mode][label] = f"llm:{model}{options}"
    others = {
        "the target's location prior": location_prior(before.cases, before.experts),
        "random": policies.make("random"),
        "stop at once": policies.make("stop"),
        "centre box": policies.make("centre-box"),
        "oracle: tight box": policies.make("oracle-box"),
        "oracle: what it learned from": policies.make(before.annotator),
    }
    arenas = {
        mode: CompareOptions(
            cases=before.cases,
            backbones=(before.backbone,),
            num_envs=before.num_envs,
            max_steps=before.max_steps,
            limit=cases[mode],
            by="target",
        )
        for mode in _MODES
    }
    # Several at once; the comparison then finds their records and plays what is left.
    with worker_pool(workers) as pool:
        threads = torch.get_num_threads()
        waiting = {
            label: pool.submit(_play, label, spec, arenas[mode], out / "table" / mode, threads)
            for mode in _MODES
            for label, spec in specs[mode].items()
        }
        for label, one in waiting.items():
            one.result()
            console.print(f"{label}: played")
    played: dict[str, list[CaseRecord]] = {}
    for mode, arena in arenas.items():
        policy_specs = [named(label, policies.make(spec)) for label, spec in specs[mode].items()]
        if mode == "greedy":
            policy_specs += [named(label, policy_spec) for label, policy_spec in others.items()]
        comparison = compare(policy_specs, arena, out / "table" / mode)
        comparison.write(out / "table" / mode)
        played |= {label: records for (_, label), records in comparison.records.items()}
    parts: dict[tuple[str, str], list[list[CaseRecord]]] = {}
    for (method, _, mode), label in labels.items():
        parts.setdefault((method, mode), []).append(played[label])
    rows = []
    for (method, mode), runs in parts.items():
        title = "SFT, where all began" if method == "start" else TITLES[method]
        row = row_over_seeds(f"{title}, {mode}", runs)
        row["cpu_minutes"] = _minutes(out, method, seeds) if method != "start" else ""
        rows.append(row)
    rows += [row_over_seeds(label, [played[label]]) for label in others]
    differences = [
        difference(f"{_name(a)} - {_name(b)}, {mode}", parts[a, mode], parts[b, mode])
        for a, b in _PAIRS
        for mode in _MODES
    ]
    stopping = [
        {"policy": f"{_name(method)}, {mode}", **line}
        for method in METHODS
        for mode in _MODES
        for line in over_start(parts[method, mode], parts["start", mode][:1], before.max_steps)
    ]
    result = {
        "machine": comparison.machine,
        "sizes": asdict(sizes),
        "chain": asdict(before),
        "seeds": list(seeds),
        "rows": rows,
        "differences": differences,
        "stopping": stopping,
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    for name, content in (("result.csv", rows), ("differences.csv", differences)):
        with (out / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    plot_curve(out, seeds, out / "curve.png")
    console.print(_as_table(rows, before))
    console.print(_differences_table(differences))
    title = "over the start, ended after its best number of calls"
    console.print(over_start_table(stopping, title, "start", "trained policy"))
    comparison.show_left_out(console)
    console.print(f"Measured on: {comparison.machine}")
    console.print(f"wrote result.json, result.csv, differences.csv, curve.png, table/ under {out}")


def _play(label: str, spec: str, arena: CompareOptions, out: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    with showing(quiet=True):
        compare([named(label, policies.make(spec))], arena, out)


def row_over_seeds(label: str, runs: Sequence[Sequence[CaseRecord]]) -> dict[str, Any]:
    """A method's line: means over its seeds and cases.

    Intervals are for other seeds and other cases, see `interval_over_runs`.

    Args:
        label: What was played.
        runs: Records of each seed, the same cases in the same order.
    """
    groups = [record.group for record in runs[0]]
    calls = sum(record.turns for run in runs for record in run)
    count = sum(map(len, runs))
    row: dict[str, Any] = {"policy": label, "seeds": len(runs), "cases": len(runs[0])}
    for name, values in (
        ("return", by_seed(runs, lambda r: r.episode_return)),
        ("dice", by_seed(runs, lambda r: r.dice[-1])),
        ("dice_after_1", by_seed(runs, lambda r: r.dice_after(1))),
    ):
        row[name] = float(values.mean())
        low, high = interval_over_runs(values, groups) or ("", "")
        row[f"{name}_low"], row[f"{name}_high"] = low, high
    every = [record for run in runs for record in run]
    boxes = [r.first_box_iou for r in every if r.first_box_iou is not None]
    row["first_box_iou"] = sum(boxes) / len(boxes) if boxes else ""
    row["calls_per_case"] = calls / count
    row["valid_rate"] = 1 - sum(r.invalid + r.cut_off for r in every) / calls
    row["stopped"] = sum(r.stopped for r in every) / count
    row["return_regret"] = sum(map(return_regret, every)) / count
    row["return_by_seed"] = " ".join(
        f"{np.mean([r.episode_return for r in run]):.3f}" for run in runs
    )
    row["cpu_minutes"] = ""
    row["notes"] = "; ".join(dict.fromkeys(note for r in every for note in r.notes))
    return row


def return_regret(record: CaseRecord, penalty: float = 0.01) -> float:
    """Return the gain that stopping at the best moment would have added to the episode's return.

    Args:
        record: Of an episode under `dice_gain`.
        penalty: Of a call that is not a stop.
    """
    best = returns_after([record], penalty, record.turns).max()
    return float(best) - record.episode_return


def difference(
    label: str, runs: Sequence[Sequence[CaseRecord]], others: Sequence[Sequence[CaseRecord]]
) -> dict[str, Any]:
    """Mean return of one method less that of another, seed by seed and case by case.

    A method of one run, as the start is, is compared with every seed of the other.
    """
    groups = [record.group for record in runs[0]]
    row: dict[str, Any] = {"difference": label, "cases": len(groups)}
    for name, pick in (
        ("return", lambda r: r.episode_return),
        ("dice", lambda r: r.dice[-1]),
    ):
        values = by_seed(runs, pick) - by_seed(others, pick)  # one run goes with every other
        row[name] = float(values.mean())
        low, high = interval_over_runs(values, groups) or ("", "")
        row[f"{name}_low"], row[f"{name}_high"] = low, high
    return row


def by_seed(runs: Sequence[Sequence[CaseRecord]], pick: Any) -> np.ndarray:
    """Return one number of every case, seeds x cases."""
    return np.array([[pick(record) for record in run] for run in runs])


def _name(method: str) -> str:
    return "SFT" if method == "start" else TITLES[method]


def _minutes(out: Path, method: str, seeds: Sequence[int]) -> str:
    minutes_by_seed = [
        read_progress(folder_of(out, method, s))[-1]["cpu_seconds"] / 60 for s in seeds
    ]
    return " ".join(f"{minutes:.1f}" for minutes in minutes_by_seed)


def _as_table(rows: Sequence[dict[str, Any]], chain: Any) -> Table:
    table = Table(title=f"{chain.cases} (synthetic), test split, {chain.backbone}")
    for header in (
        *("policy", "cases", "return [95 %]", "by seed", "Dice [95 %]", "after the 1st call"),
        *("calls", "valid", "stopped", "regret", "1st box", "CPU min", "note"),
    ):
        table.add_column(header, justify="left" if header in ("policy", "note") else "right")
    for row in rows:
        iou = row["first_box_iou"]
        table.add_row(
            row["policy"],
            str(row["cases"]),
            _spread(row, "return"),
            row["return_by_seed"] if row["seeds"] > 1 else "",
            _spread(row, "dice"),
            f"{row['dice_after_1']:.3f}",
            f"{row['calls_per_case']:.2f}",
            f"{row['valid_rate']:.1%}",
            f"{row['stopped']:.0%}",
            f"{row['return_regret']:.3f}",
            f"{iou:.3f}" if iou != "" else "-",
            row["cpu_minutes"],
            row["notes"].replace("synthetic", "").strip("; "),
        )
    return table


def _differences_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="the same cases, difference of two methods")
    for header in ("difference", "cases", "return [95 %]", "Dice [95 %]"):
        table.add_column(header, justify="left" if header == "difference" else "right")
    for row in rows:
        spreads = (_spread(row, "return", "+"), _spread(row, "dice", "+"))
        table.add_row(row["difference"], str(row["cases"]), *spreads)
    return table


def _spread(row: dict[str, Any], name: str, sign: str = "") -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return with_interval(row[name], None if low == "" else (low, high), sign)
