"""Curves of growth as a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.throughput.growth.measuring import Growth
from medseg_gym.display.plots import drawing
from medseg_gym.display.terminal import Table


def growth_table(curves: Sequence[Growth]) -> Table:
    """One line a curve: its ends, its exponent and whether that is above 1."""
    table = Table(title="growth of cost")
    for header in ("cost of", "against", "from", "to", "ms", "MiB", "exponent (95 %)", "verdict"):
        table.add_column(header)
    for curve in curves:
        fit = curve.exponent
        ends = [f"{1e3 * median(curve.seconds[i]):.3g}" for i in (0, -1)]
        held = [curve.peaks[i] for i in (0, -1)]
        memory = "-" if None in held else " to ".join(f"{peak:.0f}" for peak in held)
        unit = curve.unit + (f", power {curve.power}" if curve.power > 1 else "")
        table.add_row(
            curve.what, unit, str(curve.sizes[0]), str(curve.sizes[-1]), " to ".join(ends),
            memory, f"{fit.value:.2f} ({fit.low:.2f} to {fit.high:.2f})",
            "above linear" if fit.above_linear else "not above linear",
        )  # fmt: skip
    return table


@drawing()
def plot_growth(curves: Sequence[Growth], path: Path, machine: str) -> None:
    """Draw a panel a curve: milliseconds and memory against size, and a dotted straight line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in panels[len(curves) :]:
        panel.set_axis_off()
    for panel, curve in zip(panels, curves, strict=False):
        costs = [1e3 * median(of_size) for of_size in curve.seconds]
        panel.loglog(curve.sizes, costs, "o-", color="C0")
        linear = [costs[-1] * (size / curve.sizes[-1]) ** curve.power for size in curve.sizes]
        panel.loglog(curve.sizes, linear, ":", color="C0")
        panel.set(xlabel=curve.unit, ylim=(min(costs) / 3, max(costs) * 3))
        panel.set_ylabel("milliseconds", color="C0")
        panel.set_title(f"{curve.what}: exponent {curve.exponent.value:.2f}", fontsize=9)
        panel.set_xticks(curve.sizes, [str(size) for size in curve.sizes], fontsize=7, rotation=45)
        panel.minorticks_off()
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
        held = [(s, p) for s, p in zip(curve.sizes, curve.peaks, strict=True) if p is not None]
        if held:
            memory = panel.twinx()
            memory.plot(*zip(*held, strict=True), "s--", color="C1", markersize=3)
            memory.set_ylim(bottom=0)
            memory.set_ylabel("peak MiB", color="C1")
    figure.suptitle(f"{machine}; dotted: linear in the amount of work", fontsize=7)
    figure.savefig(path, dpi=150)
