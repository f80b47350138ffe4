"""The table and the curve of `benchmarks.learning.tiny_chain`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.policies import PolicySpec
from medseg_agents.policies.location_prior import location_prior
from rich.console import Console

from benchmarks.learning.chain_curve import plot_chains
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import bootstrap_interval
from medseg_gym.storage.atomic_write import atomic_write


def make_table(chain: Any, out: Path, taken: dict[str, dict[str, float]], console: Console) -> None:
    """Play all policies, write result.json, result.csv and curve.png, and print the table.

    Args:
        chain: The `Chain` of `tiny_chain`.
        out: Its folder.
        taken: Minutes that each stage took.
        console: To print on.
    """
    model = f"llm:{out / 'sft' / 'model'}"
    policy_specs = {
        "tiny, greedy": model,
        "tiny, sampled": f"{model}?temperature=1",
        "tiny, greedy, other images": f"shuffled-images:{model}",
        "tiny, sampled, other images": f"shuffled-images:{model}?temperature=1",
        "the target's location prior": "",
        "random": "random",
        "stop at once": "stop",
        "centre box": "centre-box",
        "oracle: tight box": "oracle-box",
        "oracle: what it learned from": chain.annotator,
    }
    options = CompareOptions(
        cases=chain.cases,
        backbones=(chain.backbone,),
        num_envs=chain.num_envs,
        max_steps=chain.max_steps,
        limit=chain.test,
        by="target",
    )
    players = [
        named(label, policies.make(text) if text else location_prior(chain.cases, chain.experts))
        for label, text in policy_specs.items()
    ]
    comparison = compare(players, options, out / "table")
    comparison.write(out / "table")
    rows = [row_of(label, comparison.records[chain.backbone, label]) for label in policy_specs]
    result = {
        "machine": comparison.machine,
        "chain": asdict(chain),
        "stages": taken,
        "rows": rows,
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    with (out / "result.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_chains([out], out / "curve.png")
    console.print(_as_table(rows, chain))
    comparison.show_left_out(console)
    console.print(f"Measured on: {comparison.machine}")
    console.print(f"wrote result.json, result.csv, curve.png and table/ under {out}")


def named(label: str, policy_spec: PolicySpec) -> PolicySpec:
    """Return the same policy under a name that says what it is."""

    def build(envs: Any) -> Any:
        policy = policy_spec.build(envs)
        policy.name = label
        return policy

    return replace(policy_spec, name=label, build=build)


def row_of(label: str, records: Sequence[Any]) -> dict[str, Any]:
    """One line of the table, over all cases of a policy."""
    groups = [record.group for record in records]
    calls = sum(record.turns for record in records)
    boxed = [record for record in records if record.first_box_iou is not None]
    row: dict[str, Any] = {"policy": label, "cases": len(records), "images": len(set(groups))}
    for name, values in (
        ("dice", [record.dice[-1] for record in records]),
        ("dice_after_1", [record.dice_after(1) for record in records]),
        ("return", [record.episode_return for record in records]),
    ):
        row[name] = sum(values) / len(values)
        row[f"{name}_low"], row[f"{name}_high"] = bootstrap_interval(values, groups) or ("", "")
    row["calls_per_case"] = calls / len(records)
    row["valid_rate"] = 1 - sum(r.invalid + r.cut_off for r in records) / calls
    row["readable_calls"] = 1 - sum(record.tools.count("") for record in records) / calls
    row["stopped"] = sum(record.stopped for record in records) / len(records)
    row["cases_with_box"] = len(boxed) / len(records)
    values = [record.first_box_iou for record in boxed]
    row["first_box_iou"] = sum(values) / len(values) if values else ""
    row["first_box_iou_low"], row["first_box_iou_high"] = (
        bootstrap_interval(values, [record.group for record in boxed]) if values else None
    ) or ("", "")
    row["notes"] = "; ".join(dict.fromkeys(note for r in records for note in r.notes))
    return row


def _as_table(rows: Sequence[dict[str, Any]], chain: Any) -> Table:
    table = Table(title=f"{chain.cases}, test split, {chain.backbone}, {rows[0]['cases']} cases")
    for header in (
        *("policy", "Dice [95 %]", "after the 1st call", "return", "calls", "valid", "stopped"),
        *("with a box", "IoU of the 1st box [95 %]", "note"),
    ):
        table.add_column(header, justify="left" if header in ("policy", "note") else "right")

    def spread(row: dict[str, Any], name: str) -> str:
        if row[name] == "":
            return "-"
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{row[name]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low != "" else "")

    for row in rows:
        table.add_row(
            row["policy"],
            spread(row, "dice"),
            f"{row['dice_after_1']:.3f}",
            spread(row, "return"),
            f"{row['calls_per_case']:.2f}",
            f"{row['valid_rate']:.1%}",
            f"{row['stopped']:.0%}",
            f"{row['cases_with_box']:.0%}",
            spread(row, "first_box_iou"),
            row["notes"],
        )
    return table
