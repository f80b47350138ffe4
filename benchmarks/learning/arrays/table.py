"""The tables: every policy on the same held-out cases, and what PPO adds to its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.localizer.training import FOLDER
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.figures import plot_calls_used
from medseg_agents.evaluation.options import CALL_COSTS, CompareOptions
from medseg_agents.evaluation.stopping import best_limit, returns_after
from medseg_agents.runs.curve import plot_curves
from medseg_agents.runs.log import read_progress
from rich.console import Console

from benchmarks.learning.arrays.sizes import TASKS
from benchmarks.learning.arrays.trained import Trained
from benchmarks.shared.markdown import markdown_table
from medseg_gym.display.numbers import with_interval
from medseg_gym.statistics import interval_over_runs

ORACLE = "oracle: clicks"
_TITLES = {"dagger": "imitation (DAgger)", "ppo": "PPO from it"}


def make_table(trained: Trained, console: Console) -> dict[str, Any]:
    """Play every policy; write TASK.json, TASK.md and the runs' curves, and print the table.

    `table/TASK` has the figures of `medseg compare`, six episodes of every policy among them.

    Args:
        trained: The runs.
        console: To print on.
    """
    task, methods, seeds = trained.task, trained.methods, trained.seeds
    sizes, out = trained.sizes, trained.out
    cases = TASKS[task]
    learnt = {
        (method, seed): f"{_TITLES[method]}, seed {seed}" for method in methods for seed in seeds
    }
    specs = {
        "stop at once": "stop",
        "the target's location prior": f"location-prior:{cases}",
        ORACLE: "oracle-click",
        "the annotator": DaggerConfig().annotator,
    }
    for (method, seed), label in learnt.items():
        specs[label] = f"sb3:{trained.run(method, seed)}"
        if method == "dagger":
            specs[f"{label}, other images"] = f"shuffled-images:{specs[label]}"
    options = CompareOptions(
        cases=cases,
        backbones=(sizes.played,),
        num_envs=16,
        limit=sizes.test,
        by="target",
        filmstrips=6,
    )
    played = trained.play(specs, options, out / "table" / task)
    sets = {label: [played[label]] for label in specs if label not in learnt.values()}
    sets = {k: v for k, v in sets.items() if not k.endswith("other images")}
    for method in methods:
        sets[_TITLES[method]] = [played[learnt[method, seed]] for seed in seeds]
    sets["imitation, shown other cases' images"] = [
        played[f"{learnt['dagger', seed]}, other images"] for seed in seeds
    ]
    steps = options.max_steps
    oracle = float(np.mean([record.dice[-1] for record in played[ORACLE]]))
    rows = [_row(label, runs, oracle, steps) for label, runs in sets.items()]
    result: dict[str, Any] = {
        "machine": trained.machine,
        "cases": cases,
        "sizes": asdict(sizes),
        "seeds": list(seeds),
        "rows": rows,
        "targets": _by_target(sets),
    }
    result["cpu_minutes"] = {
        label: _cpu_minutes(trained.run(method, seed)) for (method, seed), label in learnt.items()
    }
    if "ppo" in methods:
        result["ppo_less_start"] = _over_start(sets[_TITLES["ppo"]], sets[_TITLES["dagger"]], steps)
    folders = [trained.run(method, seed) for method, seed in learnt]
    progress = {folder.name: read_progress(folder) for folder in folders}
    drawn = {
        label: [record for run in runs for record in run]
        for label, runs in sets.items()
        if label != "stop at once"
    }
    plot_calls_used(drawn, out / f"calls-{task}.png", f"{cases}, test split (synthetic)")
    plot_curves(progress, out / f"curves-{task}.png", {ORACLE: oracle})
    trained.keep(task, result, as_markdown(result), console)
    return result


def _cpu_minutes(run: Path) -> float:
    """Return what a run took, its localizer included."""
    parts = [read_progress(folder) for folder in (run, run / FOLDER)]
    return float(sum(rows[-1]["cpu_seconds"] for rows in parts if rows)) / 60


def _values(
    runs: Sequence[Sequence[CaseRecord]], pick: Callable[[CaseRecord], float]
) -> np.ndarray:
    return np.array([[pick(record) for record in run] for run in runs])


def _row(
    label: str, runs: Sequence[Sequence[CaseRecord]], oracle: float, steps: int
) -> dict[str, Any]:
    groups = [record.group for record in runs[0]]
    dice = _values(runs, lambda record: record.dice[-1])
    row: dict[str, Any] = {
        "policy": label,
        "seeds": len(runs),
        "cases": len(groups),
        "dice": float(dice.mean()),
        "dice_interval": interval_over_runs(dice, groups),
        "dice_by_seed": dice.mean(axis=1).tolist(),
        "share_of_oracle": float(dice.mean()) / oracle,
        "dice_after": [
            float(_values(runs, lambda record: record.dice_after(k)).mean())  # noqa: B023
            for k in range(1, steps + 1)
        ],
        "actions": float(_values(runs, lambda record: record.turns).mean()),
        "boxes": float(_values(runs, lambda record: record.tools.count("box")).mean()),
        "stopping": [],
    }
    for cost in CALL_COSTS:
        tables = [returns_after(run, cost, steps) for run in runs]
        limits = [best_limit(table) for table in tables]
        own = np.array([table[:, -1] for table in tables])
        row["stopping"].append(
            {
                "call_cost": cost,
                "episode_return": float(own.mean()),
                "episode_return_interval": interval_over_runs(own, groups),
                "best_limits": limits,
                "best_limit_return": float(
                    np.mean([t[:, k].mean() for t, k in zip(tables, limits, strict=True)])
                ),
                "best_stop_return": float(np.mean([table.max(axis=1).mean() for table in tables])),
            }
        )
    return row


def _over_start(
    runs: Sequence[Sequence[CaseRecord]], starts: Sequence[Sequence[CaseRecord]], steps: int
) -> dict[str, Any]:
    """Differences by seed and case: of Dice, and of the return at every price of a call."""
    groups = [record.group for record in runs[0]]
    dice = _values(runs, lambda record: record.dice[-1])
    dice = dice - _values(starts, lambda record: record.dice[-1])
    result: dict[str, Any] = {
        "dice": float(dice.mean()),
        "dice_interval": interval_over_runs(dice, groups),
        "dice_by_seed": dice.mean(axis=1).tolist(),
        "stopping": [],
    }
    for cost in CALL_COSTS:
        trained = np.array([returns_after(run, cost, steps)[:, -1] for run in runs])
        before = [returns_after(run, cost, steps) for run in starts]
        own = trained - np.array([table[:, -1] for table in before])
        limited = trained - np.array([table[:, best_limit(table)] for table in before])
        result["stopping"].append(
            {
                "call_cost": cost,
                "over_start": float(own.mean()),
                "over_start_interval": interval_over_runs(own, groups),
                "over_limited": float(limited.mean()),
                "over_limited_interval": interval_over_runs(limited, groups),
            }
        )
    return result


def _by_target(sets: dict[str, list[list[CaseRecord]]]) -> dict[str, dict[str, float]]:
    """Mean Dice over seeds and cases, by target and policy."""
    targets = sorted({record.target for record in next(iter(sets.values()))[0]})
    return {
        target: {
            label: float(np.mean([r.dice[-1] for run in runs for r in run if r.target == target]))
            for label, runs in sets.items()
        }
        for target in targets
    }


def as_markdown(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    head = ["policy", "Dice [95 %]", "by seed", "of the oracle", "after call 1, 2, 3", "actions"]
    lines = []
    for row in result["rows"]:
        seeds = ", ".join(f"{value:.3f}" for value in row["dice_by_seed"])
        lines.append(
            [
                row["policy"],
                with_interval(row["dice"], row["dice_interval"]),
                seeds if row["seeds"] > 1 else "",
                f"{row['share_of_oracle']:.0%}",
                ", ".join(f"{value:.3f}" for value in row["dice_after"][:3]),
                f"{row['actions']:.2f}",
            ]
        )
    stops = ["policy", "a call costs", "own stops [95 %]", "best limit (calls)", "best stop"]
    stopping = []
    for row in result["rows"]:
        for line in row["stopping"]:
            limits = ", ".join(str(limit) for limit in line["best_limits"])
            stopping.append(
                [
                    row["policy"],
                    f"{line['call_cost']:g}",
                    with_interval(line["episode_return"], line["episode_return_interval"]),
                    f"{line['best_limit_return']:.3f} ({limits})",
                    f"{line['best_stop_return']:.3f}",
                ]
            )
    labels = [row["policy"] for row in result["rows"] if row["policy"] != "stop at once"]
    parts = [
        [target, *(f"{dice[label]:.2f}" for label in labels)]
        for target, dice in result["targets"].items()
    ]
    tables = ((head, lines), (stops, stopping), (["target", *labels], parts))
    text = "\n\n".join(markdown_table(*table) for table in tables)
    if "ppo_less_start" in result:
        less = result["ppo_less_start"]
        text += "\n\nPPO less its start: Dice "
        text += with_interval(less["dice"], less["dice_interval"], "+")
        for line in less["stopping"]:
            text += (
                f"; return at {line['call_cost']:g} a call "
                f"{with_interval(line['over_start'], line['over_start_interval'], '+')}, over the "
                f"limited start "
                f"{with_interval(line['over_limited'], line['over_limited_interval'], '+')}"
            )
    minutes = ", ".join(f"{label} {value:.1f}" for label, value in result["cpu_minutes"].items())
    return f"{text}\n\nCPU minutes of training: {minutes}.\n"
