"""The command: all stages that are not done yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.learning.tiny_chain import run_stages
from benchmarks.learning.tiny_volumes.chain import VolumeChain
from benchmarks.learning.tiny_volumes.table import make_table
from benchmarks.shared.sizes import read_settings
from medseg_gym.cli.main import run


def run_chain(
    out: Annotated[Path, typer.Option(help="Folder of everything; goes on if it is there.")] = Path(
        "runs/tiny_volumes"
    ),
    workers: Annotated[int, typer.Option(help="Processes that draw cases and play experts.")] = 1,
    threads: Annotated[int, typer.Option(help="Torch threads of training and table.")] = 1,
    settings: Annotated[
        str, typer.Option(help="Other sizes than the defaults, as experts=12,first_steps=20.")
    ] = "",
) -> None:
    """Run all stages that are not done yet."""
    run_stages(read_settings(VolumeChain, settings), out, workers, threads, make_table)


if __name__ == "__main__":
    run(run_chain)
