"""Plots are drawn without a display and without warnings, whatever the texts in them are."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import warnings
from itertools import combinations
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from matplotlib import style
from matplotlib.figure import Figure
from medseg_agents.evaluation.summary import plot_dice_by_step
from medseg_agents.runs.curve import plot_curves
from PIL import Image
from rich.default_styles import DEFAULT_STYLES
from skimage.color import rgb2lab

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case
from medseg_gym.cases.case_source import load_cases
from medseg_gym.cases.contact_sheet import draw_sheet
from medseg_gym.display import palette
from medseg_gym.display.plots import drawing, logarithmic
from medseg_gym.display.terminal import Console
from medseg_gym.envs.rendering import Window

TEXTS = [
    "\u5de6\u80be\u810f", "\u05db\u05dc\u05d9\u05d4", "\u0643\u0644\u064a\u0629", "\u0935\u0943",
    "\U0001f9e0 tumour", "$\\alpha{", "100 % $", "_hidden", "a\u0301\u0328", "\u200b\ufeff", "<b>&",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_drawn_without_a_word(text, tmp_path) -> None:
    rows = [{"backbone": text, "policy": text, "notes": ["oracle", text], "dice_after": [0, 1]}]
    steps = [{"step": 1, "dice": 0.1, "val/dice": 0.2, "length": 2}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_dice_by_step(rows, tmp_path / "dice.png", text)
        plot_curves({text: steps}, tmp_path / "curves.png", {text: 0.5})
    for name in ("dice.png", "curves.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 1


@pytest.mark.parametrize("text", TEXTS)
def test_sheets_and_frames_take_any_target(text, tmp_path) -> None:
    mask = np.zeros((24, 24), bool)
    mask[4:12, 4:12] = True
    case = Case(f"key {text}", np.full((24, 24, 3), 90, np.uint8), mask, text or "x", "CT")
    draw_sheet(load_cases([case]), 1, tmp_path / "sheet.png")
    env = gym.make("MedSeg-v0", cases=[case], backbone="ellipse", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[2] == 3
    env.close()


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("values", [(0.8, 2.1), (3, 40), (1e-4, 2e5), (1, 1)])
def test_numbers_of_a_logarithmic_axis_are_written_out(side, values) -> None:
    with drawing():
        figure = Figure(layout="constrained")
        panel = figure.subplots()
        panel.plot(values, values)
        logarithmic(panel, side)
        figure.savefig(io.BytesIO())
        axis = getattr(panel, f"{side}axis")
        labels = [tick.get_text() for tick in (*axis.get_ticklabels(), *axis.get_minorticklabels())]
    written = [text.replace("\N{MINUS SIGN}", "-") for text in labels if text]
    assert axis.get_scale() == "log" and len(written) > 1
    assert all(float(text) > 0 for text in written), written


@pytest.mark.parametrize("backend", ["", "TkAgg", "QtAgg", "Agg"])
def test_a_window_without_a_display_is_none(backend) -> None:
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np\n"
        f"from {Window.__module__} import Window\n"
        "window = Window('a title')\n"
        "window.show(np.zeros((8, 8, 3), np.uint8)); window.close()\n"
    )
    gone = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
    there = {key: value for key, value in os.environ.items() if key not in gone}
    if backend:
        there["MPLBACKEND"] = backend
    done = subprocess.run(
        [sys.executable, "-c", program], env=there, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency" (2009), severity 1.0; for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen_as(rgb, deficiency) -> np.ndarray:
    """A colour of 0 to 255 as such an eye sees it, in CIE L*a*b*."""
    values = np.asarray(rgb) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1)
    return rgb2lab(
        np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_every_eye_tells_the_colours_apart(deficiency) -> None:
    """A difference of 2.3 is just noticed; ten are for thin lines and small marks."""
    lines = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in palette.LINES]
    areas = [palette.MASK_RGB, palette.TRUTH_RGB, palette.BOX_RGB]
    areas += [palette.POSITIVE_RGB, palette.NEGATIVE_RGB]
    for colours, least in ((lines, 16), (areas, 11)):
        seen = [seen_as(colour, deficiency) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > least
    white = seen_as((255, 255, 255), deficiency)
    assert min(np.linalg.norm(white - seen_as(colour, deficiency)) for colour in lines) > 30


def test_the_users_own_style_does_not_darken_figures(tmp_path) -> None:
    rows = [{"backbone": "b", "policy": "p", "notes": [], "dice_after": [0, 1]}]
    for name in ("default", "dark_background"):
        with style.context(name):
            plot_dice_by_step(rows, tmp_path / f"{name}.png", "title")
    first, second = (np.asarray(Image.open(file)) for file in sorted(tmp_path.glob("*.png")))
    assert np.array_equal(first, second) and first[0, 0].min() == 255
    rgb = palette.LINES[0].lstrip("#")
    drawn = first[..., :3].reshape(-1, 3)
    assert (drawn == [int(rgb[at : at + 2], 16) for at in (0, 2, 4)]).all(1).any()


def test_the_terminal_has_no_colour_that_a_background_swallows() -> None:
    console = Console(force_terminal=True)
    pale = re.compile(r"black|blue|yellow|white|bright")
    for name, own in DEFAULT_STYLES.items():
        if name not in ("black", "yellow", "white", "blue"):
            used = console.get_style(name).color
            assert used is None or not pale.search(used.name), (name, own)
    for folder in ("medseg_gym", "agents"):
        for file in (Path(__file__).parents[1] / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            styles = re.findall(r"style=f?[\"']([^\"']*)[\"']|\[/?((?:bold )?\w+)\]", text)
            assert not [one for pair in styles for one in pair if pale.search(one)], file


def test_no_color_is_heard(monkeypatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, file=io.StringIO())
    console.print("error", style="red")
    assert "31" not in console.file.getvalue()
