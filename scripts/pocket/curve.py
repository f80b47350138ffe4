"""The plot of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gym.display.plots import drawing
from medseg_gym.storage.line_files import read_rows

SMOOTHING = 20  # lines of the curve


@drawing()
def plot_curve(curve: Path, path: Path) -> None:
    """Draw training IoU and validation Dice against steps.

    Args:
        curve: JSON lines as the training loop writes them; a resumed run may repeat some.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    lines = {numbers["step"]: numbers for numbers in read_rows(curve)}
    steps = sorted(lines)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("iou_first", "iou_last"):
        values = np.array([lines[s][name] for s in steps])
        window = np.ones(min(SMOOTHING, len(values))) / min(SMOOTHING, len(values))
        left.plot(steps[len(window) - 1 :], np.convolve(values, window, "valid"), label=name)
    left.set(title="training batches", xlabel="steps", ylabel="IoU")
    judged = [s for s in steps if "validation" in lines[s]]
    validations = [lines[s]["validation"] for s in judged]
    for name in ("phantoms_box", "phantoms_loose_box", "samples_box"):
        right.plot(judged, [f[name] for f in validations], marker="o", markersize=3, label=name)
    for name in ("phantoms_clicks", "samples_clicks"):
        for clicks in (1, 5):
            label = f"{name.split('_')[0]}, {clicks} click{'s' * (clicks > 1)}"
            right.plot(judged, [f[name][clicks - 1] for f in validations], "--", label=label)
    right.set(title="validation, averaged weights", xlabel="steps", ylabel="Dice", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)
