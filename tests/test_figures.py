"""Plots are drawn without a display and without warnings, whatever the texts in them are."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from medseg_agents.evaluation.summary import plot_dice_by_step
from medseg_agents.runs.curve import plot_curves
from PIL import Image

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case
from medseg_gym.cases.case_source import load_cases
from medseg_gym.cases.contact_sheet import draw_sheet
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
