"""Compare policies on the same cases and backbones.

    python -m benchmarks.compare_policies --cases samples \
        --policies random,stop,centre-box,oracle-box,oracle-click \
        --backbones pocket,lite_medsam,ellipse --num-envs 16

Every policy plays every case of the split once per seed. The table shows means over cases with 95 %
bootstrap intervals that resample groups (patients, volumes or images); with fewer than five groups
there is no interval. A second table has Dice after each step. A third has HD95, NSD, boundary IoU,
NoC with its failures, the area under Dice against turns and the stop regret, as defined in
`medseg_gym.episodes.metrics`. Killed half way, the same command goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.contenders import make_contender
from agents.evaluation import CaseRecord, RecordFile, evaluate, run_settings
from agents.machine import describe_machine
from agents.summary import as_tables, plot_dice_by_step, summarise_by, write_csv
from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs


def compare(
    cases: Annotated[str, typer.Option(help="Case spec.")] = "samples",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    policies: Annotated[
        str,
        typer.Option(help="Names, comma between: oracle-box:loosen=0.2, sb3:RUN, rllib:RUN, ..."),
    ] = "random,stop,centre-box,oracle-box,oracle-click",
    backbones: Annotated[
        str, typer.Option(help="Names, comma between.")
    ] = "pocket,lite_medsam,ellipse",
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="BACKBONE=FILE; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 16,
    max_steps: Annotated[int, typer.Option(help="Actions per episode.")] = 5,
    seeds: Annotated[str, typer.Option(help="Policy seeds, comma between.")] = "0",
    min_area: Annotated[
        float, typer.Option(help="Leave out targets below this share of the image, e.g. 0.003.")
    ] = 0.0,
    limit: Annotated[
        int | None, typer.Option(help="First so many cases; 200 for sources of over 1000.")
    ] = None,
    by: Annotated[str, typer.Option(help="Rows per modality, group or target.")] = "modality",
    out: Annotated[Path, typer.Option(help="Folder for records and results.")] = Path(
        "out/compare_policies"
    ),
) -> None:
    """Play, print the tables, write results.json, results.csv and dice_by_step.png."""
    if by not in ("modality", "group", "target"):
        raise typer.BadParameter(
            f"must be modality, group or target, got {by!r}", param_hint="--by"
        )
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to respect
        console = Console(width=150)
    files = dict(_pair(text) for text in checkpoint or [])
    rows: list[dict[str, Any]] = []
    all_settings: list[dict[str, Any]] = []
    machine = ""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None)
        keys: list[str] | None = None
        contenders = [make_contender(text) for text in policies.split(",")]
        for backbone in backbones.split(","):
            for contender in contenders:
                name = contender.name
                envs = make_envs(
                    num_envs,
                    contender.env_id,
                    cases=cases,
                    split=split,
                    backbone=backbone,
                    checkpoint=files.get(backbone),
                    device=device,
                    max_steps=max_steps,
                    **contender.view,
                )
                machine = describe_machine(str(envs.stage.backbone.device))
                if keys is None:
                    keys = _keys(envs.stage.source, limit, min_area)
                    runs = len(backbones.split(",")) * len(contenders) * len(seeds.split(","))
                    progress.update(bar, total=len(keys) * runs)
                policy = contender.build(envs)
                records: list[CaseRecord] = []
                for seed in map(int, seeds.split(",")):
                    progress.update(bar, description=f"{backbone}, {name}")
                    settings = run_settings(envs, policy, keys, seed)
                    all_settings.append(settings)
                    records += evaluate(
                        envs,
                        policy,
                        keys,
                        seed,
                        RecordFile(out / "records" / _file_name(settings), settings),
                        lambda batch: progress.advance(bar, len(batch)),
                    )
                rows += summarise_by(records, by, max_steps, backbone=backbone, policy=policy.name)
                envs.close()
    title = f"{cases}, {split} split" + (f", area >= {min_area:.1%}" if min_area else "")
    for table in as_tables(rows, title, max_steps):
        console.print(table)
    console.print(f"Measured on: {machine}")
    if any(row["groups"] < 5 for row in rows):
        console.print("No interval: fewer than 5 groups (patients, volumes or images).")
    out.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine, "title": title, "settings": all_settings, "rows": rows}
    (out / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False))
    write_csv([{**row, "machine": machine} for row in rows], out / "results.csv")
    plot_dice_by_step(rows, out / "dice_by_step.png", title)
    console.print(f"wrote results.json, results.csv, dice_by_step.png and records/ under {out}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"must be BACKBONE=FILE, got {text!r}", param_hint="--checkpoint")
    return name, file


def _keys(source: Any, limit: int | None, min_area: float) -> list[str]:
    if limit is None and len(source) > 1000:
        limit = 200
    keys = list(source.keys[:limit])
    if min_area:
        keys = [key for i, key in enumerate(keys) if source[i].area_fraction >= min_area]
    if not keys:
        raise MedSegError(f"no case of {source.name!r} covers {min_area:.2%} of its image")
    return keys


def _file_name(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    stem = f"{settings['backbone']}_{settings['policy']}_seed{settings['seed']}_{digest}"
    return re.sub(r"[^\w.=-]", "-", stem) + ".jsonl"


if __name__ == "__main__":
    from medseg_gym.cli import run

    run(compare)
