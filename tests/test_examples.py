"""Every program in examples/ runs, and is short enough to read from top to bottom."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from medseg_gym.prompts import AddBox, Stop, encode_tool_call

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run an example in a folder of its own; returns what it printed."""

    def start(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return start


def test_every_example_is_run_here_and_is_short():
    here = Path(__file__).read_text()
    programs = sorted(EXAMPLES.glob("*.py"))
    assert len(programs) == 8
    for program in programs:
        assert f'run("{program.name}"' in here.replace("run(\n        ", "run("), program.name
        assert len(program.read_text().splitlines()) < 80, program.name


def test_first_episode(run, tmp_path):
    text = run("first_episode.py")
    assert re.search(r"box +Dice 0\.93", text) and "return 0.90" in text
    with Image.open(tmp_path / "first_episode.png") as image:
        assert min(image.size) > 100


def test_own_reward(run):
    text = run("own_reward.py")
    gain, outline = re.search(r"sharp_outline -> \[(.+), (.+)\]", text).groups()
    assert float(gain) == -0.02 and 0.4 < float(outline) < 0.6
    assert "stop_regret -> [0.922, 0.0]" in text


def test_own_cases(run):
    text = run("own_cases.py")
    assert [int(n) for n in re.findall(r"(\d+) cases", text)] == [7, 2, 3]
    scores = [float(score) for score in re.findall(r"Dice (.+)", text)]
    assert len(scores) == 3 and min(scores) > 0.7


def test_own_policy_compare(run, tmp_path):
    text = run("own_policy_compare.py")
    assert "bright-box" in text and "oracle" in text
    assert (tmp_path / "out/own_policy/results.csv").exists()


@pytest.mark.slow
def test_train_with_sb3(run, tmp_path):
    pytest.importorskip("stable_baselines3")
    arguments = "--steps 256 --pool 4 --num-envs 8 --backbone ellipse".split()
    text = run("train_with_sb3.py", *arguments)
    assert re.search(r"return on 4 held-out cases: -?\d\.\d+ before, -?\d\.\d+ after", text)
    assert (tmp_path / "sb3_ppo.zip").exists()


def test_chat_server(run):
    pytest.importorskip("openai")
    from tests.agents.conftest import Server

    box, stop = encode_tool_call(AddBox(0.3, 0.2, 0.8, 0.7)), encode_tool_call(Stop())

    def reply(request, number):
        spoken = [m for m in request["messages"] if m["role"] == "assistant"]
        return stop if spoken else f"It lies here. {box}"

    server = Server(reply)
    try:
        arguments = ["--base-url", server.url, "--backbone", "ellipse", "--limit", "2"]
        text = run("chat_server.py", "--model", "m", *arguments)
    finally:
        server.close()
    assert text.count("It lies here.") == 2 and "mean Dice of 2 cases" in text


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("default")  # Ray's and transformers' own
def test_grpo_tiny(run):
    ray = pytest.importorskip("ray")
    pytest.importorskip("trl")
    ray.shutdown()
    try:
        text = run("grpo_tiny.py")
    finally:
        ray.shutdown()
    assert "iteration 2: return" in text


def test_volume(run, tmp_path):
    text = run("volume.py")
    dice = [
        float(line.rsplit(maxsplit=1)[1])
        for line in text.splitlines()
        if "3D Dice" in line and "slice" in line
    ]
    assert "synthetic" in text and dice[-1] > 0.8
    with Image.open(tmp_path / "volume.png") as image:
        assert image.width > 200
