"""The table of the comparison: every method on the same held-out cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.figures import draw_filmstrips_of, plot_calls_used
from medseg_agents.evaluation.options import CALL_COSTS, CompareOptions
from medseg_agents.evaluation.stopping import over_start
from rich.console import Console

from benchmarks.learning.methods.budget import explored_returns, same_weights, signs, trained
from benchmarks.learning.methods.catalogue import DEFAULT, METHODS, START
from benchmarks.learning.methods.figure import plot_differences, plot_learning
from benchmarks.learning.methods.markdown import as_markdown, limited_key, share, spread
from benchmarks.learning.methods.sizes import Sizes, start_of
from benchmarks.learning.tiny_rl.table import by_seed, row_over_seeds
from benchmarks.learning.tiny_table import named
from medseg_gym.cases import load_cases
from medseg_gym.display.output import showing
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import hierarchical_interval
from medseg_gym.storage.atomic_write import atomic_write

Records = Sequence[CaseRecord]
_FORMS = {
    "return": lambda record: record.episode_return,
    "dice": lambda record: record.dice[-1],
    "dice_1": lambda record: record.dice_after(1),
    "dice_3": lambda record: record.dice_after(3),
}
_SIGNS = ("clipped", "flat_groups", "resampled")


def play(name: str, seed: int, sizes: Sizes, out: Path) -> list[CaseRecord]:
    """Play the held-out cases greedily, or read what was played.

    Args:
        name: Of the method.
        seed: Of the run.
        sizes: Of the comparison.
        out: Its folder.
    """
    return _play(trained(out, name, seed, sizes).model, f"{name}, seed {seed}", sizes, out)


def _play_starts(
    names: Sequence[str], seeds: Sequence[int], sizes: Sizes, out: Path
) -> dict[str, list[list[CaseRecord]]]:
    """Play them with the models that the runs begin from, of which many are the same."""
    models = {name: [start_of(out, name, seed, sizes) for seed in seeds] for name in names}
    played = {
        model: _play(model, f"{START}, {model.parts[-3]}", sizes, out)
        for model in dict.fromkeys(model for some in models.values() for model in some)
    }
    return {name: [played[model] for model in some] for name, some in models.items()}


def _play(model: Path, label: str, sizes: Sizes, out: Path) -> list[CaseRecord]:
    policy = named(label, policies.make(f"llm:{model}"))
    with showing(quiet=True):
        comparison = compare([policy], _options(sizes), out / "table")
    return comparison.records[sizes.backbone, label]


def _options(sizes: Sizes) -> CompareOptions:
    return CompareOptions(
        cases=sizes.held_out,
        backbones=(sizes.backbone,),
        num_envs=64,
        max_steps=sizes.max_steps,
    )


def make_table(
    names: Sequence[str],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
    minutes: Mapping[str, Mapping[str, float]],
    machine: str,
    console: Console,
) -> list[dict[str, Any]]:
    """Write result.json, result.csv, table.md and the figures, and print the table.

    The figures: differences.png, learning.png (returns while exploring, Dice by call),
    calls_used.png, and six episodes of the first start and of the default, evenly spread by their
    final Dice, in filmstrips/.

    Args:
        names: Methods, each trained with every seed; the default is one of them.
        seeds: Of the runs.
        sizes: Of the comparison.
        out: Its folder.
        minutes: That every stage took.
        machine: It was measured on.
        console: To print on.

    Returns:
        Its rows.
    """
    records = {name: [play(name, seed, sizes, out) for seed in seeds] for name in names}
    starts = _play_starts(names, seeds, sizes, out)
    rows = [_start_row(starts[DEFAULT], sizes)]
    rows += [_row(name, records, starts[name], seeds, sizes, out, minutes) for name in names]
    result = {
        "machine": machine,
        "sizes": asdict(sizes),
        "seeds": list(seeds),
        "rows": rows,
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    with (out / "result.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    atomic_write(out / "table.md", as_markdown(rows))
    _draw_figures(rows, records, starts[DEFAULT], seeds, sizes, out)
    console.print(_as_table(rows, sizes))
    console.print(f"Measured on: {machine}")
    console.print(f"wrote result.json, result.csv, table.md, figures and table/ under {out}")
    return rows


def _draw_figures(
    rows: Sequence[dict[str, Any]],
    records: Mapping[str, list[list[CaseRecord]]],
    starts: list[list[CaseRecord]],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
) -> None:
    titled = {START: starts} | {METHODS[name].title: runs for name, runs in records.items()}
    explored = {
        METHODS[name].title: [explored_returns(out, name, seed, sizes) for seed in seeds]
        for name in records
    }
    dice = {
        title: [
            [mean(r.dice_after(k) for r in run) for k in range(1, sizes.max_steps + 1)]
            for run in runs
        ]
        for title, runs in titled.items()
    }
    plot_differences(rows[1:], out / "differences.png")
    plot_learning(explored, dice, out / "learning.png")
    pooled = {title: [record for run in runs for record in run] for title, runs in titled.items()}
    plot_calls_used(pooled, out / "calls_used.png", f"{sizes.held_out} (synthetic)")
    options = replace(_options(sizes), filmstrips=6)
    first = {(sizes.backbone, title): titled[title][0] for title in (START, METHODS[DEFAULT].title)}
    source = load_cases(sizes.held_out, "test")
    draw_filmstrips_of(first, source, options, out / "filmstrips")


def _start_row(runs: list[list[CaseRecord]], sizes: Sizes) -> dict[str, Any]:
    """The start's line, without differences."""
    # One that all seeds begin from is one row's worth of cases.
    row = row_over_seeds(START, runs if sizes.starts else runs[:1])
    row |= {"method": START, "options": ""}
    for other in (START, DEFAULT):
        row |= _difference(other, runs, None)
    row |= _present(runs, None)
    row |= _over_limited(runs, None, sizes)
    row |= {"episodes": "", "same_weights_as_default": 0}
    return row | dict.fromkeys((*_SIGNS, "cpu_minutes"), "")


def _row(
    name: str,
    records: Mapping[str, list[list[CaseRecord]]],
    starts: list[list[CaseRecord]],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
    minutes: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """One method's line."""
    row = row_over_seeds(METHODS[name].title, records[name])
    row |= {"method": name, "options": METHODS[name].options}
    row |= _difference(START, records[name], starts)
    row |= _difference(DEFAULT, records[name], None if name == DEFAULT else records[DEFAULT])
    row |= _present(records[name], starts)
    row |= _over_limited(records[name], starts, sizes)
    runs = [trained(out, name, seed, sizes) for seed in seeds]
    row["episodes"] = " ".join(str(run.episodes) for run in runs)
    defaults = [trained(out, DEFAULT, seed, sizes) for seed in seeds]
    row["same_weights_as_default"] = sum(
        same_weights(run.model, default.model) for run, default in zip(runs, defaults, strict=True)
    )
    shown = [signs(out, name, seed, run.iterations) for seed, run in zip(seeds, runs, strict=True)]
    for sign in _SIGNS:
        values = [one[sign] for one in shown if sign in one]
        row[sign] = sum(values) / len(values) if values else ""
    spent = [minutes.get(f"{name}, seed {seed}", {}).get("cpu_minutes") for seed in seeds]
    row["cpu_minutes"] = " ".join(f"{value:.1f}" for value in spent if value is not None)
    return row


def _present(runs: Sequence[Records], starts: Sequence[Records] | None) -> dict[str, Any]:
    """Differences to the start where the target is there: leaving absent ones alone gains none."""
    there = [[[r for r in run if r.area] for run in some] for some in (runs, starts or runs)]
    row = _difference(START, there[0], None if starts is None else there[1])
    return {f"present_{key}": value for key, value in row.items() if key.startswith("dice_")}


def _over_limited(
    runs: Sequence[Records], starts: Sequence[Records] | None, sizes: Sizes
) -> dict[str, Any]:
    """Return less that of the start under its best limit on calls, at every price of a call."""
    row: dict[str, Any] = {}
    lines = [] if starts is None else over_start(runs, starts, sizes.max_steps, CALL_COSTS)
    for number, cost in enumerate(CALL_COSTS):
        key = limited_key(cost)
        row |= dict.fromkeys((key, f"{key}_low", f"{key}_high"), "")
        if lines:
            low, high = lines[number]["over_limited_interval"] or ("", "")
            row |= {key: lines[number]["over_limited"], f"{key}_low": low, f"{key}_high": high}
    return row


def _difference(
    other: str, runs: Sequence[Records], others: Sequence[Records] | None
) -> dict[str, Any]:
    """Mean difference of return and Dice, case by case and seed by seed, with an interval."""
    groups = [record.group for record in runs[0]]
    row: dict[str, Any] = {}
    for form, pick in _FORMS.items():
        key = f"{form}_over_{other}"
        if others is None:
            row |= dict.fromkeys((key, f"{key}_low", f"{key}_high", f"{key}_by_seed"), "")
            continue
        values = by_seed(runs, pick) - by_seed(others, pick)
        row[key] = float(values.mean())
        row[f"{key}_low"], row[f"{key}_high"] = hierarchical_interval(values, groups) or ("", "")
        row[f"{key}_by_seed"] = " ".join(f"{value:+.3f}" for value in values.mean(axis=1))
    return row


def _as_table(rows: Sequence[dict[str, Any]], sizes: Sizes) -> Table:
    table = Table(title=f"{sizes.held_out} (synthetic), test split, {sizes.backbone}, greedy")
    for header in (
        *("method", "return", "by seed", "- start [95 %]", "- default [95 %]", "Dice", "calls"),
        *("valid", "stopped", "clipped", "flat", "CPU min"),
    ):
        table.add_column(header, justify="left" if header == "method" else "right")
    for row in rows:
        table.add_row(
            row["policy"],
            f"{row['return']:.3f}",
            row["return_by_seed"] if row["seeds"] > 1 else "",
            spread(row, "return_over_start"),
            spread(row, "return_over_default"),
            f"{row['dice']:.3f}",
            f"{row['calls_per_case']:.2f}",
            f"{row['valid_rate']:.1%}",
            f"{row['stopped']:.0%}",
            share(row["clipped"]),
            share(row["flat_groups"]),
            row["cpu_minutes"],
        )
    return table
