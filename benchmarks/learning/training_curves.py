"""Draw several training runs in one plot.

python -m benchmarks.learning.training_curves runs/seed0 runs/seed1 --level "oracle clicks=0.91"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from medseg_agents.runs.curve import plot_curves
from medseg_agents.runs.log import read_progress

from medseg_gym.errors import MedSegError


def draw(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("out/training_curves.png"),
    level: Annotated[
        list[str] | None, typer.Option(help="NAME=DICE, a dashed line; may be repeated.")
    ] = None,
) -> None:
    """Write the plot."""
    curves = {}
    for run in runs:
        curves[run.name] = read_progress(run)
        if not curves[run.name]:
            raise MedSegError(f"{run} has no progress.jsonl with rows: not a run of `medseg train`")
    levels = {}
    for text in level or []:
        name, _, dice = text.rpartition("=")
        try:
            levels[name] = float(dice)
        except ValueError:
            raise MedSegError(f"--level must be NAME=DICE, got {text!r}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_curves(curves, out, levels)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(draw)
