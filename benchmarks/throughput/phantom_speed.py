"""Speed of drawing synthetic images: images per second of processor time, by scene.

    python -m benchmarks.throughput.phantom_speed

One thread. Processor time, not wall time, so that a busy machine disturbs it less; it still does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.shared.results import show_and_keep
from medseg_gym.cases import load_cases
from medseg_gym.cases.phantoms import CASES_PER_IMAGE, SCENES
from medseg_gym.display.terminal import Table


def measure(
    images: Annotated[int, typer.Option(help="Images drawn per scene and repetition.")] = 60,
    repeats: Annotated[int, typer.Option(help="The median repetition counts.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/phantom_speed"),
) -> None:
    """Draw images, print and write images per second."""
    specs = ["phantoms", *(f"phantoms:{scene}" for scene in SCENES), "phantoms:hard"]
    rates = {}
    for spec in specs:
        source = load_cases(spec, "val")
        speeds = []
        for repeat in range(repeats):
            first = repeat * images
            began = time.process_time()
            for image in range(first, first + images):
                source[image * CASES_PER_IMAGE]
            speeds.append(images / (time.process_time() - began))
        rates[spec] = sorted(speeds)[repeats // 2]
    table = Table("cases", "images/s of one core")
    for spec, rate in rates.items():
        table.add_row(spec, f"{rate:.0f}")
    machine = f"{describe_machine()}, load {os.getloadavg()[0]:.1f}"
    show_and_keep(table, machine, out, images_per_s=rates)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
