"""Cost against environments, steps, prompts, cases and image side, with the exponent of each.

    python -m benchmarks.throughput.growth --out out/growth

Every curve is measured in a process of its own, with one thread, in CPU time on a CPU; its peak
memory beside it. Exponents are those of the largest sizes, where what a call costs however small it
is no longer counts; of images, in pixels. Cases are synthetic. The exit status is 1 where the whole
interval of an exponent lies above 1.05.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.shared.workers import worker_pool
from benchmarks.throughput.growth.curves import CURVES
from benchmarks.throughput.growth.figure import growth_table, plot_growth
from benchmarks.throughput.growth.measuring import Growth, measure_curve
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write


def measure(
    curves: Annotated[str, typer.Option(help="Comma between.")] = ",".join(CURVES),
    backbone: Annotated[str, typer.Option(help="Spec of the segmenter.")] = "pocket",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    turns: Annotated[int, typer.Option(help="Timings of every size.")] = 5,
    small: Annotated[bool, typer.Option(help="The four smallest sizes alone.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for growth.json, .png.")] = Path("out/growth"),
) -> None:
    """Measure the curves, print the table, write growth.json and growth.png."""
    names = curves.split(",")
    unknown = [name for name in names if name not in CURVES]
    if unknown:
        raise MedSegError(f"there is no curve {', '.join(unknown)}; known: {', '.join(CURVES)}")
    if turns < 1:
        raise MedSegError(f"--turns must be at least 1, got {turns}")
    console, measured = make_console(), list[Growth]()
    machine = f"{describe_machine(device)}, {backbone}"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            sizes = CURVES[name].sizes[: 4 if small else None]
            with worker_pool(1) as pool:
                asked = (name, sizes, backbone, device, turns, Path(folder))
                measured.append(pool.submit(measure_curve, *asked).result())
            console.print(f"{name}: exponent {measured[-1].exponent.value:.2f}")
            results = {"machine": machine, "curves": [curve.as_json() for curve in measured]}
            atomic_write(out / "growth.json", json.dumps(results, indent=1))
    plot_growth(measured, out / "growth.png", machine)
    console.print(growth_table(measured))
    console.print(f"Measured on: {machine}; wrote growth.json and growth.png under {out}")
    if any(curve.exponent.above_linear for curve in measured):
        raise typer.Exit(1)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
