"""Compare policies on the same cases and backbones.

    python -m benchmarks.policies.compare --cases samples \
        --policies random,stop,centre-box,oracle-box,oracle-click \
        --backbones pocket,lite_medsam,ellipse --num-envs 16

Every policy plays every case of the split once per seed. The table shows means over cases with 95 %
bootstrap intervals that resample groups (patients, volumes or images); with fewer than five groups
there is no interval. A second table has Dice after each step. A third has HD95, NSD, boundary IoU,
NoC with its failures, the area under Dice against turns and the stop regret, as defined in
`medseg_gym.episodes.metrics`. Killed half way, the same command goes on where it was. A case that a
model's server fails on is left out in every row, and the table says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from medseg_agents.evaluation.comparison import Arena
from medseg_agents.evaluation.comparison import compare as play
from medseg_agents.evaluation.failed_cases import MAX_FAILURES
from medseg_agents.policies import make
from medseg_agents.policies import split as split_specs

from medseg_gym.backbones.registry import BACKBONES
from medseg_gym.display.terminal import make_console


def compare(
    cases: Annotated[str, typer.Option(help="Case spec.")] = "samples",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    policies: Annotated[
        str,
        typer.Option(help="Specs, comma between: oracle-box?loosen=0.2,sb3:RUN,rllib:RUN,..."),
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
    max_failures: Annotated[
        int, typer.Option(help="Failed cases that end the run of a policy.", min=1)
    ] = MAX_FAILURES,
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
    console = make_console()
    arena = Arena(
        cases=cases,
        split=split,
        backbones=tuple(BACKBONES.split(backbones)),
        checkpoints=dict(_pair(text) for text in checkpoint or []),
        device=device,
        max_steps=max_steps,
        num_envs=num_envs,
        seeds=tuple(map(int, seeds.split(","))),
        limit=limit,
        min_area=min_area,
        by=by,
        max_failures=max_failures,
    )
    policy_specs = [make(text) for text in split_specs(policies)]
    comparison = play(policy_specs, arena, out, console)
    comparison.write(out)  # first: who reads the tables may go away
    comparison.show(console)
    console.print(f"wrote results.json, results.csv, dice_by_step.png and records/ under {out}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"must be BACKBONE=FILE, got {text!r}", param_hint="--checkpoint")
    return name, file


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(compare)
