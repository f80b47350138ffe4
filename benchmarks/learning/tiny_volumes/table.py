"""The table and the curve of the chain on volumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medseg_agents import policies
from medseg_agents.policies import PolicySpec
from medseg_agents.runs.machine import describe_machine
from rich.console import Console

from benchmarks.learning.chain_curve import plot_chains
from benchmarks.learning.tiny_volumes.chain import VolumeChain
from medseg_gym import annotators, backbones
from medseg_gym.annotators.box import box_iou, tight_box
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.display.terminal import Table
from medseg_gym.policy import Played, make_envs, play_cases
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import SlicePrompt
from medseg_gym.statistics import bootstrap_interval
from medseg_gym.storage.atomic_write import atomic_write


def volume_spec(text: str) -> PolicySpec:
    """Return a policy for volumes; what has no view of its own plays `MedSegVolume-v0`."""
    if text in annotators.volume_names():
        return PolicySpec(text, lambda envs: annotators.make(text, envs.codec), "MedSegVolume-v0")
    spec = policies.make(text)
    return spec if spec.view else replace(spec, env_id="MedSegVolume-v0")


def make_table(
    chain: VolumeChain, out: Path, taken: dict[str, dict[str, float]], console: Console
) -> None:
    """Play all policies, write result.json and curve.png, and print the table.

    What a policy's play gave is kept in `table/`, so that a killed table goes on.

    Args:
        chain: Sizes.
        out: Folder of the chain.
        taken: Minutes that each stage took.
        console: To print on.
    """
    model = f"llm:{out / 'sft' / 'model'}"
    lines = {
        "tiny, greedy": (model, ""),
        "tiny, greedy, other images": (f"shuffled-images:{model}", "control"),
        "the target's location prior": (f"location-prior:{chain.cases}", ""),
        "middle box": ("middle-box", ""),
        "what it learned from": (chain.annotator, "oracle"),
    }
    backbone = backbones.load(chain.backbone)  # one for all: slices are encoded once
    rows = []
    for number, (label, (text, note)) in enumerate(lines.items()):
        file = out / "table" / f"{number}.json"
        if not file.exists():
            console.print(f"playing: {label}")
            played = play_volumes(chain, volume_spec(text), backbone)
            atomic_write(file, json.dumps(row_of(label, note, played), indent=1))
        rows.append(json.loads(file.read_text(encoding="utf-8")))
    result = {
        "machine": describe_machine(),
        "chain": asdict(chain),
        "stages": taken,
        "rows": rows,
    }
    atomic_write(out / "result.json", json.dumps(result, indent=1))
    plot_chains([out], out / "curve.png")
    console.print(_as_table(rows, chain))
    console.print(f"Measured on: {result['machine']}")
    console.print(f"wrote result.json, curve.png and table/ under {out}")


def play_volumes(chain: VolumeChain, spec: PolicySpec, backbone: Any) -> list[Played]:
    """Play the held-out cases once each."""
    envs = make_envs(
        chain.num_envs,
        spec.env_id,
        cases=chain.cases,
        split="test",
        backbone=backbone,
        max_steps=chain.max_steps,
        **spec.view,
    )
    keys = load_volumes(chain.cases, "test").keys[: chain.test]
    batches = list(play_cases(envs, spec.build(envs), keys, chain.seed))
    envs.close()
    return [one for batch in batches for one in batch]


def row_of(label: str, note: str, played: Sequence[Played]) -> dict[str, Any]:
    """One line of the table, over all cases of a policy; intervals resample scans."""
    groups = [one.episode.case.group for one in played]
    summaries = [one.summary for one in played]
    turns = sum(one.turns for one in summaries)
    measures: dict[str, list[float]] = {
        "dice": [one.dice for one in summaries],
        "return": [one.episode_return for one in summaries],
    }
    boxes = [_first_box(one.episode) for one in played]
    row: dict[str, Any] = {"policy": label, "cases": len(played), "scans": len(set(groups))}
    for name, values in measures.items():
        row[name] = sum(values) / len(values)
        row[f"{name}_interval"] = bootstrap_interval(values, groups)
    boxed = [box for box in boxes if box is not None]
    errors = [abs(prompt.slice - middle) for prompt, middle, _ in boxed]
    ious = [iou for *_, iou in boxed if iou is not None]
    return row | {
        "valid_rate": sum(one.valid for one in summaries) / turns,
        "calls_per_case": turns / len(played),
        "stopped": sum(one.stopped for one in summaries) / len(played),
        "with_box": len(boxed) / len(played),
        "slices_from_key": sum(errors) / len(errors) if errors else None,
        "box_on_target": len(ious) / len(played),
        "first_box_iou": sum(ious) / len(ious) if ious else None,
        "by_target": _by_target(played),
        "note": "; ".join(filter(None, (note, "synthetic"))),
    }


def _by_target(played: Sequence[Played]) -> dict[str, float]:
    """Mean Dice of each target."""
    values: dict[str, list[float]] = {}
    for one in played:
        values.setdefault(one.episode.case.target, []).append(one.summary.dice)
    return {target: sum(dice) / len(dice) for target, dice in values.items()}


def _first_box(episode: Any) -> tuple[SlicePrompt, int, float | None] | None:
    """First box of an episode, the slice that shows most of the target, and the box's IoU.

    The IoU is that with the tight box of its own slice; None where the target is not on it.
    """
    areas = episode.case.mask.sum(axis=(1, 2))
    for step in episode.steps:
        prompt = step.prompt
        if step.valid and isinstance(prompt, SlicePrompt) and isinstance(prompt.prompt, AddBox):
            target = tight_box(episode.case.mask[prompt.slice])
            iou = None if target is None else box_iou(prompt.prompt, target)
            return prompt, int(areas.argmax()), iou
    return None


def _as_table(rows: Sequence[dict[str, Any]], chain: VolumeChain) -> Table:
    cases, scans = rows[0]["cases"], rows[0]["scans"]
    title = f"{chain.cases}, test split, {chain.backbone}, {cases} cases on {scans} scans"
    table = Table(title=title)
    for header in (
        *("policy", "3D Dice [95 %]", "return", "valid calls", "calls", "stopped"),
        *("box on the target", "its IoU", "slices from the key slice", "note"),
    ):
        table.add_column(header, justify="left" if header in ("policy", "note") else "right")
    for row in rows:
        interval = row["dice_interval"]
        spread = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        table.add_row(
            row["policy"],
            f"{row['dice']:.3f}{spread}",
            f"{row['return']:.3f}",
            f"{row['valid_rate']:.1%}",
            f"{row['calls_per_case']:.2f}",
            f"{row['stopped']:.0%}",
            f"{row['box_on_target']:.0%}",
            _number(row["first_box_iou"], 3),
            _number(row["slices_from_key"], 1),
            row["note"],
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
