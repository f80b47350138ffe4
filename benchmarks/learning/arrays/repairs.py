"""The table of repairing: episodes that begin with a wrong mask, over seeds of training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from rich.console import Console

from benchmarks.learning.arrays.sizes import TASKS, Sizes, begun_wrong
from benchmarks.learning.tiny_table import named
from benchmarks.policies.repairing import is_repaired, kinds_of
from medseg_gym.cases import load_cases
from medseg_gym.display.numbers import with_interval
from medseg_gym.statistics import interval_over_runs
from medseg_gym.storage.atomic_write import atomic_write

EXPERT = "oracle-click"
CALLS, WITHIN = 3, 0.05
_OTHERS = {
    "stop at once": "stop",
    "oracle: a box, then clicks": "oracle-box-click",
    "annotator `box-to-point`": "box-to-point",
}
_TITLES = {
    "dagger": "imitation, never shown a wrong mask",
    "ppo": "PPO from it",
    "repair": "imitation going on with wrong masks",
}


def make_repair_table(
    task: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    sizes: Sizes,
    out: Path,
    machine: str,
    console: Console,
) -> dict[str, Any]:
    """Play every policy on wrong masks; write repairing-TASK.json and .md, and print the latter.

    Args:
        task: Of `TASKS`.
        methods: That were trained, "dagger" first.
        seeds: Likewise.
        sizes: Of the runs.
        out: Their folder.
        machine: It was measured on.
        console: To print on.
    """
    cases = begun_wrong(TASKS[task])
    learnt = {method: [f"{method}, seed {seed}" for seed in seeds] for method in methods}
    specs = {EXPERT: EXPERT, **_OTHERS}
    for method, labels in learnt.items():
        for label, seed in zip(labels, seeds, strict=True):
            specs[label] = f"sb3:{sizes.run(out, method, task, seed)}"
    options = CompareOptions(
        cases=cases, backbones=(sizes.played,), limit=sizes.repair_test, max_steps=CALLS
    )
    folder = out / "repairing" / task
    comparison = compare(
        [named(label, policies.make(spec)) for label, spec in specs.items()], options, folder
    )
    comparison.write(folder)
    played = {label: records for (_, label), records in comparison.records.items()}
    sets = {label: [played[label]] for label in _OTHERS}
    sets |= {_TITLES[method]: [played[label] for label in learnt[method]] for method in methods}
    kinds = kinds_of(load_cases(cases, "test"), [record.case for record in played[EXPERT]])
    repaired = {label: _repaired(runs, played[EXPERT]) for label, runs in sets.items()}
    groups = [record.group for record in played[EXPERT]]
    start = repaired[_TITLES["dagger"]]
    result: dict[str, Any] = {"machine": machine, "cases": cases, "seeds": list(seeds)}
    result["expert_dice"] = _dice_by_call([played[EXPERT]])
    result["rows"] = [_row(label, sets[label], repaired[label], groups, kinds) for label in sets]
    result["less_imitation"] = {
        _TITLES[method]: {
            "repaired": float((repaired[_TITLES[method]] - start).mean()),
            "interval": interval_over_runs(repaired[_TITLES[method]] - start, groups),
        }
        for method in methods
        if method != "dagger"
    }
    atomic_write(out / f"repairing-{task}.json", json.dumps(result, indent=1))
    text = as_markdown(result)
    atomic_write(out / f"repairing-{task}.md", text)
    console.print(text, markup=False, soft_wrap=True)
    return result


def _repaired(runs: Sequence[Sequence[CaseRecord]], expert: Sequence[CaseRecord]) -> np.ndarray:
    """Seeds x cases, 1 where the mask was repaired."""
    return np.array([is_repaired(run, expert, CALLS, WITHIN) for run in runs], float)


def _dice_by_call(runs: Sequence[Sequence[CaseRecord]]) -> list[float]:
    return [
        float(np.mean([record.dice_after(call) for run in runs for record in run]))
        for call in range(CALLS + 1)
    ]


def _row(
    label: str,
    runs: Sequence[Sequence[CaseRecord]],
    repaired: np.ndarray,
    groups: Sequence[str],
    kinds: Sequence[str],
) -> dict[str, Any]:
    return {
        "policy": label,
        "repaired": float(repaired.mean()),
        "interval": interval_over_runs(repaired, groups),
        "by_seed": repaired.mean(axis=1).tolist(),
        "by_kind": {
            kind: float(repaired[:, [own == kind for own in kinds]].mean())
            for kind in sorted(set(kinds))
        },
        "dice": _dice_by_call(runs),
    }


def as_markdown(result: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    kinds = list(result["rows"][0]["by_kind"])
    head = [
        "policy",
        "repaired [95 %]",
        "by seed",
        *kinds,
        "Dice at the start, after calls 1, 2, 3",
    ]
    lines = [head, ["---"] * len(head)]
    dice = ", ".join(f"{value:.3f}" for value in result["expert_dice"])
    lines.append(["oracle: clicks", "1", "", *("1" for _ in kinds), dice])
    for row in result["rows"]:
        seeds = ", ".join(f"{value:.3f}" for value in row["by_seed"])
        lines.append(
            [
                row["policy"],
                with_interval(row["repaired"], row["interval"]),
                seeds if len(row["by_seed"]) > 1 else "",
                *(f"{row['by_kind'][kind]:.2f}" for kind in kinds),
                ", ".join(f"{value:.3f}" for value in row["dice"]),
            ]
        )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    for label, less in result["less_imitation"].items():
        change = with_interval(less["repaired"], less["interval"], "+")
        text += f"\n{label}, less imitation alone: {change} of the episodes.\n"
    return text
