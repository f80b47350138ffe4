"""The table of the comparison: every method on the same held-out cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from rich.console import Console

from benchmarks.learning.methods.budget import is_trained, same_weights, signs, trained
from benchmarks.learning.methods.catalogue import DEFAULT, METHODS, START
from benchmarks.learning.methods.figure import plot_differences
from benchmarks.learning.methods.intervals import hierarchical_interval
from benchmarks.learning.methods.sizes import Sizes, start_of
from benchmarks.learning.tiny_rl_table import row_over_seeds
from benchmarks.learning.tiny_table import named
from medseg_gym.cases import CaseSource, load_cases
from medseg_gym.cases.pool import case_pool
from medseg_gym.display.terminal import Table
from medseg_gym.storage.atomic_write import atomic_write

Records = Sequence[CaseRecord]
_FORMS = {"return": lambda record: record.episode_return, "dice": lambda record: record.dice[-1]}


def play(name: str, seed: int, sizes: Sizes, out: Path) -> list[CaseRecord]:
    """Play the held-out cases greedily, or read what was played.

    Args:
        name: Of the method, or `START`.
        seed: Of the run.
        sizes: Of the comparison.
        out: Its folder.
    """
    if name == START:
        model, label = start_of(out), START
    else:
        model, label = trained(out, name, seed, sizes).model, f"{name}, seed {seed}"
    options = CompareOptions(
        cases=_held_out(sizes.scene, sizes.test),
        backbones=(sizes.backbone,),
        num_envs=64,
        max_steps=sizes.max_steps,
        limit=None,
    )
    policy = named(label, policies.make(f"llm:{model}"))
    comparison = compare([policy], options, out / "table", Console(quiet=True))
    return comparison.records[sizes.backbone, label]


@lru_cache(maxsize=1)
def _held_out(scene: str, count: int) -> CaseSource:
    """Return cases of the test split, drawn once for all that play them."""
    return case_pool(load_cases(scene, "test"), count)


def make_table(
    names: Sequence[str],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
    minutes: Mapping[str, Mapping[str, float]],
    machine: str,
    console: Console,
) -> list[dict[str, Any]]:
    """Write result.json, result.csv and differences.png, and print the table.

    Args:
        names: Methods; those without a finished run of every seed are left out and said.
        seeds: Of the runs.
        sizes: Of the comparison.
        out: Its folder.
        minutes: That every stage took.
        machine: It was measured on.
        console: To print on.

    Returns:
        Its rows.
    """
    whole = [name for name in names if all(is_trained(out, name, seed) for seed in seeds)]
    records: dict[str, list[list[CaseRecord]]] = {START: [play(START, 0, sizes, out)]}
    for name in whole:
        records[name] = [play(name, seed, sizes, out) for seed in seeds]
    rows = [_row(name, records, seeds, sizes, out, minutes) for name in records]
    missing = [name for name in names if name not in whole]
    result = {
        "machine": machine,
        "sizes": asdict(sizes),
        "seeds": list(seeds),
        "not_run": missing,
        "rows": rows,
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    with (out / "result.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_differences(rows[1:], out / "differences.png")
    console.print(_as_table(rows, sizes))
    if missing:
        console.print(f"Not run with all seeds, so left out: {', '.join(missing)}")
    console.print(f"Measured on: {machine}")
    console.print(f"wrote result.json, result.csv, differences.png and table/ under {out}")
    return rows


def _row(
    name: str,
    records: Mapping[str, list[list[CaseRecord]]],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
    minutes: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """One method's line; the start has no seeds and no differences."""
    title = "start" if name == START else METHODS[name].title
    row = row_over_seeds(title, records[name])
    row |= {"method": name, "options": "" if name == START else METHODS[name].options}
    for other in (START, DEFAULT):
        runs = records[other] * len(seeds) if other == START else records[other]
        row |= _difference(other, records[name], runs if name != START else records[START])
    runs_of = [] if name == START else [trained(out, name, seed, sizes) for seed in seeds]
    row["episodes"] = " ".join(str(run.episodes) for run in runs_of)
    defaults = [] if name == START else [trained(out, DEFAULT, seed, sizes) for seed in seeds]
    row["same_weights_as_default"] = sum(
        same_weights(run.model, default.model)
        for run, default in zip(runs_of, defaults, strict=True)
    )
    shown = [
        signs(out, name, seed, run.iterations) for seed, run in zip(seeds, runs_of, strict=False)
    ]
    for sign in ("clipped", "flat_groups", "resampled"):
        values = [one[sign] for one in shown if sign in one]
        row[sign] = sum(values) / len(values) if values else ""
    spent = [minutes.get(f"{name}, seed {seed}", {}).get("cpu_minutes") for seed in seeds]
    row["cpu_minutes"] = " ".join(f"{value:.1f}" for value in spent if value is not None)
    return row


def _difference(other: str, runs: Sequence[Records], others: Sequence[Records]) -> dict[str, Any]:
    """Mean difference of return and Dice, case by case and seed by seed, with an interval."""
    groups = [record.group for record in runs[0]]
    row: dict[str, Any] = {}
    for form, pick in _FORMS.items():
        values = _values(runs, pick) - _values(others, pick)
        key = f"{form}_over_{other}"
        row[key] = float(values.mean())
        row[f"{key}_low"], row[f"{key}_high"] = hierarchical_interval(values, groups) or ("", "")
        row[f"{key}_by_seed"] = " ".join(f"{value:+.3f}" for value in values.mean(axis=1))
    return row


def _values(runs: Sequence[Records], pick: Any) -> np.ndarray:
    """Return one number of every case, seeds x cases."""
    return np.array([[pick(record) for record in run] for run in runs])


def verdict(row: Mapping[str, Any], key: str) -> str:
    """Return what an interval says: "more", "less", or "" where it holds 0 or is none."""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    if low == "" or low <= 0 <= high:
        return ""
    return "more" if low > 0 else "less"


def _as_table(rows: Sequence[dict[str, Any]], sizes: Sizes) -> Table:
    table = Table(title=f"{sizes.scene} (synthetic), test split, {sizes.backbone}, greedy")
    for header in (
        *("method", "return", "by seed", "- start [95 %]", "- default [95 %]", "Dice"),
        *("Dice - default [95 %]", "calls", "valid", "stopped", "clipped", "flat", "CPU min"),
    ):
        table.add_column(header, justify="left" if header == "method" else "right")
    for row in rows:
        start = row["method"] == START
        same = row["same_weights_as_default"] == row["seeds"] and row["method"] != DEFAULT
        table.add_row(
            row["policy"],
            f"{row['return']:.3f}",
            "" if start else row["return_by_seed"],
            "" if start else spread(row, "return_over_start"),
            "" if start or row["method"] == DEFAULT else spread(row, "return_over_default"),
            f"{row['dice']:.3f}",
            "the same weights" if same else spread(row, "dice_over_default"),
            f"{row['calls_per_case']:.2f}",
            f"{row['valid_rate']:.1%}",
            f"{row['stopped']:.0%}",
            _share(row["clipped"]),
            _share(row["flat_groups"]),
            row["cpu_minutes"],
        )
    return table


def _share(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1%}"


def spread(row: Mapping[str, Any], key: str) -> str:
    """Return a difference with its interval."""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    text = f"{row[key]:+.3f}"
    return text if low == "" else f"{text} [{low:+.3f}, {high:+.3f}]"
