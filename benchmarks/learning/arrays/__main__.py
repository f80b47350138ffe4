"""Array policies by imitation (DAgger), and PPO that goes on from there, on a CPU.

    python -m benchmarks.learning.arrays --out runs/arrays --seeds 0,1,2

Needs no network and no files. Per task and seed one imitation; from it one run of PPO, and with
`--repair` one more imitation on episodes that begin with a wrong mask. Then a table over held-out
cases, with the oracle, the annotator, the location prior and the same networks shown other cases'
images, and with `--repair` one of the wrong masks that each repairs. What is done is not
done again when the same command is given again, and a run that was killed goes on from its newest
checkpoint. Several processes may share the work, with other `--seeds` and `--train-only`, in one
folder. All cases are synthetic.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.machine import describe_machine

from benchmarks.learning.arrays.repairs import make_repair_table
from benchmarks.learning.arrays.sizes import TASKS, Sizes
from benchmarks.learning.arrays.table import make_table
from benchmarks.learning.arrays.trained import Trained
from benchmarks.shared.sizes import claim, read_settings
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError


def run(
    out: Annotated[Path, typer.Option(help="Folder of everything; goes on if it is there.")] = Path(
        "runs/arrays"
    ),
    seeds: Annotated[str, typer.Option(help="Of networks, pools and draws.")] = "0,1,2",
    tasks: Annotated[str, typer.Option(help=f"Of {', '.join(TASKS)}.")] = "abdomen,random",
    ppo: Annotated[str, typer.Option(help="Tasks on which PPO goes on, or none.")] = "abdomen",
    repair: Annotated[
        str, typer.Option(help="Tasks on which wrong masks are imitated on, or none.")
    ] = "none",
    train_only: Annotated[bool, typer.Option(help="Leave out the tables.")] = False,
    settings: Annotated[
        str, typer.Option(help="Other sizes than the defaults, as steps=512,updates=4.")
    ] = "",
) -> None:
    """Train what is not trained yet, then make the tables."""
    from medseg_agents.arrays.dagger import train_dagger
    from medseg_agents.arrays.sb3 import train_sb3

    sizes = read_settings(Sizes, settings)
    numbers = [int(seed) for seed in seeds.split(",")]
    chosen = {*tasks.split(","), *ppo.split(","), *repair.split(",")}
    unknown = chosen - {*TASKS, "none", ""}
    if unknown:
        raise MedSegError(f"unknown tasks {sorted(unknown)}; there are {', '.join(TASKS)}")
    claim(out / "arrays.json", sizes)
    torch.set_num_threads(1)
    console = make_console()
    for task in tasks.split(","):
        for seed in numbers:
            config, folder = sizes.dagger(task, seed), sizes.run(out, "dagger", task, seed)
            if not is_done(folder, config.steps):
                resume = (folder / "config.json").exists()
                console.rule(folder.name)
                train_dagger(config, folder, resume)
            mending, folder = sizes.repair(out, task, seed), sizes.run(out, "repair", task, seed)
            if task in repair.split(",") and not is_done(folder, mending.steps):
                resume = (folder / "config.json").exists()
                console.rule(folder.name)
                train_dagger(mending, folder, resume)
            if task not in ppo.split(","):
                continue
            going_on, folder = sizes.ppo(out, task, seed), sizes.run(out, "ppo", task, seed)
            if not is_done(folder, going_on.steps):
                resume = (folder / "config.json").exists()
                console.rule(folder.name)
                train_sb3(going_on, folder, resume)
    for task in () if train_only else tasks.split(","):
        trained = Trained(
            task=task,
            methods=["dagger", *(["ppo"] if task in ppo.split(",") else [])],
            seeds=numbers,
            sizes=sizes,
            out=out,
            machine=describe_machine(),
        )
        make_table(trained, console)
        if task in repair.split(","):
            make_repair_table(replace(trained, methods=[*trained.methods, "repair"]), console)


def is_done(folder: Path, steps: int) -> bool:
    """Return whether a run has a checkpoint of its end."""
    newest = RunFolder(folder).newest()
    return newest is not None and newest[0] >= steps


if __name__ == "__main__":
    from medseg_gym.cli.main import run as run_command

    run_command(run)
