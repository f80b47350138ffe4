"""Quality of the simulated annotators, length of their episodes, and their cost.

    python -m benchmarks.policies.annotators --cases samples,phantoms --backbone pocket --limit 30

Every annotator plays the same cases of the test splits. Tables: Dice after each turn and final IoU,
the share of episodes that the final-IoU filter would keep, of clicks tried that passed the quality
check, the lengths of episodes; paired differences of `hybrid` against box-only and click-only at
equal turns, with 95 % bootstrap intervals by group (patient, volume or image) where there are at
least five; and the time an expert's own work takes beside the decode it precedes.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.evaluation.case_record import CaseRecord, of_images
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.evaluation.summary import plot_dice_by_step, summarise, write_csv
from medseg_agents.runs.machine import describe_machine

from benchmarks.policies.annotators_report import (
    difference_table,
    flat,
    plot_lengths,
    quality_table,
    time_table,
)
from medseg_gym import annotators, backbones
from medseg_gym.annotators import Effort, Expert, Noisy
from medseg_gym.backbones import Backbone
from medseg_gym.cases import left_out_note
from medseg_gym.display.terminal import make_console
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.policy import Policy, ask, case_generator, give_engine, make_envs
from medseg_gym.statistics import bootstrap_interval
from medseg_gym.storage.atomic_write import atomic_write

POLICIES = (
    "oracle-box,oracle-click,sequential-click,box-to-point,hybrid,noisy-sequential-click,"
    "noisy-box-to-point,noisy-hybrid"
)


def measure(
    cases: Annotated[str, typer.Option(help="Case specs, comma between.")] = "samples,phantoms",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    policies: Annotated[str, typer.Option(help="Names, comma between.")] = POLICIES,
    pairs: Annotated[
        str, typer.Option(help="Compared case by case: A-against-B as A/B, comma between.")
    ] = "hybrid/oracle-box,hybrid/sequential-click,box-to-point/oracle-box,"
    "box-to-point/sequential-click",
    backbone: Annotated[str, typer.Option(help="Name.")] = "pocket",
    checkpoint: Annotated[str | None, typer.Option(help="Its weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 16,
    max_steps: Annotated[int, typer.Option(help="Turns per episode.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the policies.")] = 0,
    limit: Annotated[int, typer.Option(help="Most cases of a source.")] = 30,
    min_iou: Annotated[float, typer.Option(help="Final-IoU filter, the same for all.")] = 0.7,
    timed_slots: Annotated[int, typer.Option(help="Slots of the timing; 0 leaves it out.")] = 64,
    timed: Annotated[
        str, typer.Option(help="Backbones timed beside the chosen one, comma between.")
    ] = "ellipse",
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/annotators"),
) -> None:
    """Play, print the tables, write results.json, results.csv and two plots."""
    console = make_console()
    names = annotators.split(policies)
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    left_out: dict[str, dict[str, int]] = {}
    for spec in cases.split(","):
        envs = make_envs(
            num_envs,
            cases=spec,
            split=split,
            backbone=backbone,
            checkpoint=checkpoint,
            device=device,
            max_steps=max_steps,
        )
        keys = list(envs.source.keys[:limit])
        left_out[spec] = dict(envs.source.left_out)
        played: dict[str, list[CaseRecord]] = {}
        for name in names:
            policy = annotators.make(name, envs.codec)
            with console.status(f"{backbone} on {spec}: {name}"):
                played[name] = of_images(evaluate(envs, policy, keys, seed))
            labels = {"backbone": f"{backbone} on {spec}", "policy": policy.name}
            row = summarise(played[name], max_steps, **labels)
            rows.append({**row, **effort_of(policy, played[name], max_steps, min_iou)})
        for pair in pairs.split(",") if pairs else []:
            better, _, other = pair.partition("/")
            if better in played and other in played:
                comparison = compare(played[better], played[other], max_steps)
                differences.append(
                    {"cases": spec, "policy": better, "against": other, **comparison}
                )
        machine = describe_machine(str(envs.backbone.device))
        envs.close()
    timings = []
    if timed_slots:
        for name in dict.fromkeys([*filter(None, timed.split(",")), backbone]):
            with console.status(f"timing {timed_slots} slots of {name}"):
                file = checkpoint if name == backbone else None
                timings += measure_time(backbones.load(name, file, device), timed_slots, max_steps)
    title = f"annotators with {backbone}, {split} split"
    console.print(quality_table(rows, title, max_steps, min_iou))
    if differences:
        console.print(difference_table(differences, max_steps))
    if timings:
        console.print(time_table(timings, timed_slots))
    for spec, counts in left_out.items():
        if counts:
            note = f"{spec}: {left_out_note(counts)}"
            console.print(note, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": machine,
        "title": title,
        "settings": {"seed": seed, "limit": limit, "num_envs": num_envs, "min_iou": min_iou},
        "left_out": left_out,
        "rows": rows,
        "differences": differences,
        "timings": timings,
    }
    atomic_write(out / "results.json", json.dumps(results, indent=1))
    write_csv([flat(row, machine) for row in rows], out / "results.csv")
    plot_dice_by_step(rows, out / "dice_by_step.png", title)
    plot_lengths(rows, out / "lengths.png", title)
    console.print(f"wrote results.json, results.csv, dice_by_step.png and lengths.png under {out}")


# quality ------------------------------------------------------------------------------------------
def effort_of(
    policy: Policy, records: Sequence[CaseRecord], max_steps: int, min_iou: float
) -> dict[str, Any]:
    """Return what a summary row lacks: IoU per turn, lengths, and what the checks let through.

    Returns:
        `iou_after` (list), `lengths` (share of episodes with 0..max_steps prompts, Stop not
        counted), `accepted` (share that ends with at least `min_iou`), and of clicks looked at
        `kept` (share) and `looks` (per turn); None where the policy looks at none.
    """
    effort = effort_in(policy)
    lengths = Counter(sum(tool != "stop" for tool in record.tools) for record in records)
    ends = [len(record.iou) - 1 for record in records]
    return {
        "iou_after": [
            float(np.mean([r.iou[min(k, end)] for r, end in zip(records, ends, strict=True)]))
            for k in range(max_steps + 1)
        ],
        "lengths": [lengths[k] / len(records) for k in range(max_steps + 1)],
        "accepted": float(np.mean([record.iou[-1] >= min_iou for record in records])),
        "kept": effort.kept / effort.looks if effort.looks else None,
        "looks": effort.looks / effort.searches if effort.searches else None,
    }


def effort_in(policy: Policy) -> Effort:
    """The effort an expert counted, through its noisy hand too."""
    expert = policy.expert if isinstance(policy, Noisy) else policy
    return expert.effort if isinstance(expert, Expert) else Effort()


def compare(
    first: Sequence[CaseRecord], second: Sequence[CaseRecord], max_steps: int
) -> dict[str, Any]:
    """Paired difference of Dice, case by case, after each turn.

    Returns:
        `n`, `groups`, and per turn 1..max_steps `means` and `intervals` (None with too few groups).
    """
    assert [r.case for r in first] == [r.case for r in second]
    groups = [record.group for record in first]
    gaps = [
        [a.dice_after(k) - b.dice_after(k) for a, b in zip(first, second, strict=True)]
        for k in range(1, max_steps + 1)
    ]
    return {
        "n": len(groups),
        "groups": len(set(groups)),
        "means": [float(np.mean(gap)) for gap in gaps],
        "intervals": [bootstrap_interval(gap, groups) for gap in gaps],
    }


# time ---------------------------------------------------------------------------------------------
def measure_time(backbone: Backbone, slots: int, max_steps: int) -> list[dict[str, Any]]:
    """Time the first two turns of experts in `slots` slots that play the bundled real cases.

    Returns:
        Per expert and turn, medians in seconds: `own` (all the expert does but decode), `ahead`
        (its look-ahead decodes), `decode` (one decode of the first prompts in all slots, which is
        what the first step costs and less than what later ones do); and `looks`, the clicks tried
        per slot.
    """
    envs = make_envs(
        slots, cases="samples", split="test", backbone=backbone, max_steps=max_steps, image_size=64
    )
    keys = [envs.source.keys[i % len(envs.source)] for i in range(slots)]
    timings = []
    for name in ("sequential-click?retries=0", "sequential-click", "box-to-point"):
        played = []
        for repeat in range(3):
            policy = annotators.make(name, envs.codec)
            played.append(_time_turns(envs, policy, keys, seed=repeat))
        # The first repeat encodes and warms up.
        medians = np.median(np.array(played[1:]), axis=0)
        for turn, (own, ahead, decode, looks) in enumerate(medians.tolist(), start=1):
            entry = {"own": own, "ahead": ahead, "decode": decode, "looks": looks / slots}
            timings.append({"backbone": backbone.name, "policy": name, "turn": turn, **entry})
    envs.close()
    return timings


def _time_turns(
    envs: CoreVectorEnv, policy: Policy, keys: list[str], seed: int
) -> list[tuple[float, float, float, int]]:
    engine, codec = envs.engine, envs.codec
    give_engine(policy, envs)
    preview, ahead = engine.preview, [0.0]

    def timed_preview(*arguments: Any) -> Any:
        began = time.perf_counter()
        states = preview(*arguments)
        ahead[0] += time.perf_counter() - began
        return states

    observations, _ = envs.reset(options={"case": keys})
    slots = range(envs.num_envs)
    policy.reset(list(slots), [case_generator(seed + i, key) for i, key in enumerate(keys)])
    turns = []
    decode = 0.0
    engine.preview = timed_preview  # type: ignore[method-assign,assignment]
    for turn in range(2):
        looked, ahead[0] = effort_in(policy).looks, 0.0
        began = time.perf_counter()
        actions = ask(policy, observations, [envs.engine.episode(slot) for slot in slots])
        own = time.perf_counter() - began - ahead[0]
        if turn == 0:
            began = time.perf_counter()
            prompts: Any = codec.decode(actions)
            preview([envs.engine.episode(slot) for slot in slots], prompts)
            decode = time.perf_counter() - began
            observations, *_ = envs.step(actions)
        turns.append((own, ahead[0], decode, effort_in(policy).looks - looked))
    del engine.preview  # the method again
    return turns


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
