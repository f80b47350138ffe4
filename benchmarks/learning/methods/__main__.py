"""Methods of the paper index, each trained alike on a tiny model, on a CPU.

    python -m benchmarks.learning.methods --out runs/methods --seeds 0,1,2

Needs no network and no files. A short supervised start is made first, a small
`benchmarks.learning.tiny_chain` with the image-blind `ellipse` segmenter: it makes valid calls and
is mediocre. `starts=` begins from chains of your own instead, a seed from each. From its start
every method trains with every seed, on the same few training cases, with as many episodes as the
others (fine-tuning continued with as many steps as it is given), and plays the same held-out cases
greedily. Methods that are used most come first. `--methods ablations` changes one thing of the
default each. A run is a stage that is not done again when the
same command is given again; more `--seeds` or `--methods` add to what is there.

All cases are synthetic: training takes the train split, the table the test split.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.learning.methods.budget import is_trained, start_is_made
from benchmarks.learning.methods.catalogue import choose_methods
from benchmarks.learning.methods.sizes import Sizes, chain_of
from benchmarks.learning.methods.table import make_table, play
from benchmarks.learning.methods.training import make_start, train
from benchmarks.learning.tiny_chain import Stages
from benchmarks.shared.sizes import claim, read_settings
from medseg_gym.display.terminal import make_console


def run(
    out: Annotated[Path, typer.Option(help="Folder of everything; goes on if it is there.")] = Path(
        "runs/methods"
    ),
    seeds: Annotated[str, typer.Option(help="Of cases, draws and order of rows.")] = "0,1,2",
    methods: Annotated[
        str,
        typer.Option(help='"all", "ablations", or names; the default is always one.'),
    ] = "all",
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 1,
    settings: Annotated[
        str, typer.Option(help="Other sizes than the defaults, as iterations=2,groups=4.")
    ] = "",
) -> None:
    """Train and play what is not done yet, then make the table."""
    sizes, names = read_settings(Sizes, settings), choose_methods(methods)
    numbers = [int(seed) for seed in seeds.split(",")]
    claim(out / "methods.json", sizes)
    torch.set_num_threads(threads)
    console = make_console()
    stages = Stages(out, console)
    for name in names:
        if not start_is_made(out, name, sizes, numbers):
            start = chain_of(out, name, 0, sizes)
            stages.run(start.name, partial(make_start, sizes, name, out))
    for name in names:
        for seed in numbers:
            if not is_trained(out, name, seed):
                stages.run(f"{name}, seed {seed}", partial(train, name, seed, sizes, out))
            play(name, seed, sizes, out)
    make_table(names, numbers, sizes, out, stages.taken, describe_machine(), console)


if __name__ == "__main__":
    from medseg_gym.cli.main import run as run_command

    run_command(run)
