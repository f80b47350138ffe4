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

    medseg compare --runs out/eval_before out/eval_after

lays two runs side by side that were played already, of `medseg eval` or `medseg compare`: paired
differences case by case, with intervals that resample groups.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from medseg_agents.evaluation.options import CompareOptions
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError

_USED_BY_RUNS = ("cases", "call_costs")


def compare_policies(
    options: CompareOptions,
    *,
    runs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B",
            help="Lay two runs of eval or compare side by side instead: paired differences, a "
            "scatter plot, the cases that differ most. --cases then says where their images are, "
            "--call-costs at which prices the second meets the first under its best limit.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for records and results; left out is out/compare_policies, or "
            "out/compare_runs with --runs."
        ),
    ] = None,
) -> None:
    """Compare policies: prints tables, writes results as JSON and CSV, and figures of them."""
    if runs is not None:
        _lay_side_by_side(options, runs, out or Path("out/compare_runs"))
        return
    from medseg_agents import policies
    from medseg_agents.evaluation.comparison import compare
    from medseg_agents.runs.folder import RunFolder

    out = out or Path("out/compare_policies")
    console = make_console()
    policy_specs = [policies.make(text) for text in options.policies]
    RunFolder(out).write_config(options)
    comparison = compare(policy_specs, options, out)
    files = comparison.write(out)  # first: who reads the tables may go away
    print_result({**comparison.as_json(), "out": out})
    comparison.show(console)
    files += ["records/", *(["masks/"] if options.save_masks else [])]
    console.print(f"wrote {', '.join(files)} under {out}", soft_wrap=True)


def _lay_side_by_side(options: CompareOptions, runs: tuple[Path, Path], out: Path) -> None:
    from medseg_agents.evaluation.paired import compare_runs

    for field in fields(options):
        if field.name not in _USED_BY_RUNS and getattr(options, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise MedSegError(f"--{flag} does nothing with --runs: nothing is played")
    console = make_console()
    comparison = compare_runs(runs, options.call_costs)
    cases = options.cases if options.cases != CompareOptions.cases else None
    files = comparison.write(out, cases)
    print_result({**comparison.as_json(), "out": out})
    comparison.show(console)
    console.print(f"wrote {', '.join(files)} under {out}", soft_wrap=True)


compare_command = with_options(CompareOptions, compare_policies)
