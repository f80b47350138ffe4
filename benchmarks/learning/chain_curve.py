"""Draw how chains from nothing learned, stage by stage; several chains in one plot.

python -m benchmarks.learning.chain_curve runs/mixed0 runs/mixed1 --out out/chain_curve.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from medseg_agents.runs.log import read_progress

from medseg_gym.display.plots import drawing, labelled, legend_below, logarithmic
from medseg_gym.errors import MedSegError

# Folder of a stage, what is drawn of it, its title, and whether values differ by factors.
_PANELS = (
    ("vision", "held_out/box_iou", "vision tower: IoU of its boxes, validation images", False),
    ("reading", "loss", "reading: loss per token of the answers", True),
    ("first", "loss", "first turns: loss per token of the completions", True),
    ("sft", "loss", "mixed: loss per token of the completions", True),
)


def draw(
    chains: Annotated[list[Path], typer.Argument(help="Folders of `tiny_chain`.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("out/chain_curve.png"),
) -> None:
    """Write the plot."""
    out.parent.mkdir(parents=True, exist_ok=True)
    plot_chains(chains, out)


@drawing()
def plot_chains(chains: Sequence[Path], path: Path) -> None:
    """Draw a panel for each stage that any of the chains has, against its optimiser steps.

    Args:
        chains: Their folders; a line each.
        path: PNG to write.

    Raises:
        MedSegError: A folder has no stage of a chain.
    """
    from matplotlib.figure import Figure

    curves = [
        {stage: points for stage, key, _, _ in _PANELS if (points := _curve(chain / stage, key))}
        for chain in chains
    ]
    for chain, of_chain in zip(chains, curves, strict=True):
        if not of_chain:
            raise MedSegError(f"{chain} has no progress of any stage: not a folder of tiny_chain")
    shown = [panel for panel in _PANELS if any(panel[0] in of_chain for of_chain in curves)]
    figure = Figure(figsize=(4 * len(shown), 3.4), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, (stage, _, title, by_factors) in zip(panels, shown, strict=True):
        for number, (chain, of_chain) in enumerate(zip(chains, curves, strict=True)):
            if stage in of_chain:
                look = {"color": f"C{number}", "label": chain.name}
                panel.plot(*zip(*of_chain[stage], strict=True), **look)
        if by_factors:
            logarithmic(panel, "y")
        panel.set_title(title, fontsize=8)
        panel.set_xlabel("optimiser steps")
        panel.grid(alpha=0.3, which="both")
    if len(chains) > 1:
        legend_below(figure, labelled(figure))
    figure.savefig(path, dpi=130)


def _curve(folder: Path, key: str) -> list[tuple[int, float]]:
    points = _points(folder, key)
    if points:  # as `vision_again` went on
        points += _points(folder / "again", key, points[-1][0])
    return points


def _points(folder: Path, key: str, before: int = 0) -> list[tuple[int, float]]:
    rows = read_progress(folder) if folder.is_dir() else []
    return [(before + row["step"], row[key]) for row in rows if key in row]


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(draw)
