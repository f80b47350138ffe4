"""The table of repairing: episodes that begin with a wrong mask, over seeds of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.options import CompareOptions
from rich.console import Console

from benchmarks.learning.arrays.sizes import TASKS, begun_wrong
from benchmarks.learning.arrays.trained import Trained
from benchmarks.policies.repairing import is_repaired, kinds_of
from benchmarks.shared.markdown import markdown_table
from medseg_gym.cases import load_cases
from medseg_gym.display.numbers import with_interval
from medseg_gym.statistics import interval_over_runs

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


def make_repair_table(trained: Trained, console: Console) -> dict[str, Any]:
    """Play every policy on wrong masks; write repairing-TASK.json and .md, and print the latter.

    Args:
        trained: The runs.
        console: To print on.
    """
    task, methods, seeds = trained.task, trained.methods, trained.seeds
    cases = begun_wrong(TASKS[task])
    learnt = {method: [f"{method}, seed {seed}" for seed in seeds] for method in methods}
    specs = {EXPERT: EXPERT, **_OTHERS}
    for method, labels in learnt.items():
        for label, seed in zip(labels, seeds, strict=True):
            specs[label] = f"sb3:{trained.run(method, seed)}"
    options = CompareOptions(
        cases=cases,
        backbones=(trained.sizes.played,),
        limit=trained.sizes.repair_test,
        max_steps=CALLS,
    )
    played = trained.play(specs, options, trained.out / "repairing" / task)
    sets = {label: [played[label]] for label in _OTHERS}
    sets |= {_TITLES[method]: [played[label] for label in learnt[method]] for method in methods}
    kinds = kinds_of(load_cases(cases, "test"), [record.case for record in played[EXPERT]])
    repaired = {label: _repaired(runs, played[EXPERT]) for label, runs in sets.items()}
    groups = [record.group for record in played[EXPERT]]
    start = repaired[_TITLES["dagger"]]
    result: dict[str, Any] = {"machine": trained.machine, "cases": cases, "seeds": list(seeds)}
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
    trained.keep(f"repairing-{task}", result, as_markdown(result), console)
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
    dice = ", ".join(f"{value:.3f}" for value in result["expert_dice"])
    lines = [["oracle: clicks", "1", "", *("1" for _ in kinds), dice]]
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
    text = markdown_table(head, lines) + "\n"
    for label, less in result["less_imitation"].items():
        change = with_interval(less["repaired"], less["interval"], "+")
        text += f"\n{label}, less imitation alone: {change} of the episodes.\n"
    return text
