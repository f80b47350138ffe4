"""Train `pocket`.

    python -m scripts.pocket.data.real_images --output out/pocket/real_images.npz
    python -m scripts.pocket run --out runs/pocket --processes 2

On a GPU: `run --device cuda --images 32 --steps 20000 --workers 14`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medseg_gym.backbones import choose_device
from medseg_gym.backbones.families.pocket import WEIGHTS, build_model
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from scripts.pocket.config import PocketConfig
from scripts.pocket.curve import plot_curve
from scripts.pocket.loop import BEST, CURVE, SETTINGS, save_weights
from scripts.pocket.processes import run_other_process, run_process
from scripts.pocket.teacher import make_teaching_set

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help=(__doc__ or "").split("\n")[0]
)
console = make_console()

RealImages = Annotated[Path, typer.Option(help="From scripts/pocket/data/real_images.py.")]
Teaching = Annotated[Path, typer.Option(help="Folder of the teaching set; made if need be.")]
PHANTOMS = 400  # that the teacher looks at beside the real images
REAL_IMAGES, TEACHING = Path("out/pocket/real_images.npz"), Path("out/pocket/teaching")


@app.command()
def teach(
    real_images: RealImages = REAL_IMAGES,
    teaching: Teaching = TEACHING,
    phantoms: Annotated[int, typer.Option(help="Phantoms of the train split.")] = PHANTOMS,
) -> None:
    """Let LiteMedSAM look at the training images, once."""
    for line in make_teaching_set(real_images, teaching, phantoms):
        console.print(line)


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder of the run; an existing one goes on.")],
    recipe: Annotated[str, typer.Option(help="distil or scratch.")] = "distil",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = PocketConfig.steps,
    images: Annotated[int, typer.Option(help="Images a step and process.")] = PocketConfig.images,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = PocketConfig.rate,
    rounds: Annotated[int, typer.Option(help="Most rounds of prompts.")] = PocketConfig.rounds,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    processes: Annotated[int, typer.Option(help="Training processes; on a CPU one a core.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    workers: Annotated[int, typer.Option(help="Drawing processes, each; for a GPU.")] = 0,
    start: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    real_images: RealImages = REAL_IMAGES,
    teaching: Teaching = TEACHING,
) -> None:
    """Make the teaching set if need be, train, keep the best weights and draw the curve."""
    out.mkdir(parents=True, exist_ok=True)
    config = PocketConfig(
        recipe=recipe,
        steps=steps,
        images=images,
        rate=rate,
        rounds=rounds,
        seed=seed,
        start=None if start is None else str(start),
    )
    settings = out / SETTINGS
    if settings.exists() and PocketConfig.read(settings) != config:
        raise MedSegError(f"{out} holds a run with other settings ({settings}); name another --out")
    config.write(settings)
    with console.status("LiteMedSAM looks at the images") as status:
        for line in make_teaching_set(real_images, teaching, PHANTOMS):
            status.update(f"LiteMedSAM looks at the images: {line}")
    chosen = str(choose_device(device))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("training", total=steps)

        def report(numbers: dict[str, Any]) -> None:
            progress.update(bar, completed=numbers["step"])
            if "validation" in numbers:
                progress.console.print(f"step {numbers['step']}: {numbers['validation']}")

        others = None  # rank 0 is this process: it shows the progress
        if processes > 1:
            others = torch.multiprocessing.spawn(
                run_other_process,
                (processes, config, teaching, out, chosen, workers, port, None),
                nprocs=processes - 1,
                join=False,
            )
        run_process(0, processes, config, teaching, out, chosen, workers, port, report)
        if others is not None:
            while not others.join():
                pass
    plot_curve(out / CURVE, out / "curve.png")
    console.print(f"best weights: {out / BEST}; curve: {out / 'curve.png'}")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    to: Annotated[Path, typer.Option(help="Weight file; by default the packaged one.")] = WEIGHTS,
) -> None:
    """Write a run's best weights in half precision, as the package carries them."""
    from medseg_gym.backbones.checkpoints import load_weights, read_state_dict

    model = build_model()
    load_weights(model, read_state_dict(out / BEST), out / BEST)
    save_weights(model, to, torch.float16)
    console.print(f"{to}: {to.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    from medseg_gym.cli.main import plain_errors

    with plain_errors(program=True):
        app()
