r"""`medseg compare`: policies on the same cases and backbones.

    medseg compare --cases samples \
        --policies random,stop,centre-box,oracle-box,oracle-click \
        --backbones pocket,lite_medsam,ellipse --num-envs 16

Every policy plays every case of the split once per seed. The table shows means over cases with 95 %
bootstrap intervals that resample groups (patients, volumes or images); with fewer than five groups
there is no interval. A second table has Dice after each step. A third has HD95, NSD, boundary IoU,
NoC with its failures, the area under Dice against turns and the stop regret, as defined in
`medseg_gym.episodes.metrics`. Where the cases are slices of volumes, a fourth has the scores of the
volumes in 3D: their slices put together, intervals by patient. Killed half way, the same command
goes on where it was. A case that a model's server fails on is left out in every row, and the table
says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_agents.evaluation.options import CompareOptions
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console


def compare_policies(
    options: CompareOptions,
    *,
    out: Annotated[Path, typer.Option(help="Folder for records and results.")] = Path(
        "out/compare_policies"
    ),
) -> None:
    """Compare policies: prints tables, writes results.json, results.csv and dice_by_step.png."""
    from medseg_agents import policies
    from medseg_agents.evaluation.comparison import compare
    from medseg_agents.runs.folder import RunFolder

    console = make_console()
    policy_specs = [policies.make(text) for text in options.policies]
    RunFolder(out).write_config(options)
    comparison = compare(policy_specs, options, out, console)
    files = comparison.write(out)  # first: who reads the tables may go away
    print_result({**comparison.as_json(), "out": out})
    comparison.show(console)
    files += ["records/", *(["masks/"] if options.save_masks else [])]
    console.print(f"wrote {', '.join(files)} under {out}", soft_wrap=True)


compare_command = with_options(CompareOptions, compare_policies)
