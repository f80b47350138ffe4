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

    drawn: dict[str, list[tuple[str, list[tuple[int, float]]]]] = {}
    for chain in chains:
        before = sum(map(len, drawn.values()))
        for stage, key, _, _ in _PANELS:
            points = _points(chain / stage, key)
            if points:  # as `vision_again` went on
                points += _points(chain / stage / "again", key, points[-1][0])
            if points:
                drawn.setdefault(stage, []).append((chain.name, points))
        if sum(map(len, drawn.values())) == before:
            raise MedSegError(f"{chain} has no progress of any stage: not a folder of tiny_chain")
    shown = [panel for panel in _PANELS if panel[0] in drawn]
    figure = Figure(figsize=(4 * len(shown), 3.4), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, (stage, _, title, by_factors) in zip(panels, shown, strict=True):
        for name, points in drawn[stage]:
            panel.plot(*zip(*points, strict=True), color=f"C{_place(chains, name)}", label=name)
        if by_factors:
            logarithmic(panel, "y")
        panel.set_title(title, fontsize=8)
        panel.set_xlabel("optimiser steps")
        panel.grid(alpha=0.3, which="both")
    if len(chains) > 1:
        legend_below(figure, labelled(figure))
    figure.savefig(path, dpi=130)


def _points(folder: Path, key: str, before: int = 0) -> list[tuple[int, float]]:
    rows = read_progress(folder) if folder.is_dir() else []
    return [(before + row["step"], row[key]) for row in rows if key in row]


def _place(chains: Sequence[Path], name: str) -> int:
    return [chain.name for chain in chains].index(name)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(draw)
