"""Every command that takes a user's own things answers wrong names of them before it starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medseg_gym.errors import MedSegError

CASES = ["--cases", "./cases.py:Squares"]
SMALL = ["--backbone", "ellipse", "--device", "cpu"]
ARRAYS = ["--steps", "32", "--num-envs", "4", "--rollout", "8", "--minibatch", "32"]
CHAT = ["--model", "tiny", "--groups", "4"]
ROWS = ["--model", "tiny", "--play-backbone", "ellipse"]

COMMANDS = {
    "eval": ["eval", "--policy", "stop", *SMALL],
    "compare": ["compare", "--policies", "stop", "--backbones", "ellipse"],
    "run": ["run", "image.png", "--target", "square", "--policy", "stop", *SMALL],
    "generate": ["trajectories", "generate", "--annotator", "stop", *SMALL],
    "play": ["play", "--no-browser", *SMALL],
    "dagger": ["train", "dagger", *ARRAYS, *SMALL],
    "sb3-ppo": ["train", "sb3-ppo", *ARRAYS, *SMALL],
    "rllib-ppo": ["train", "rllib-ppo", *ARRAYS, *SMALL],
    "grpo": ["train", "grpo", *CHAT, *SMALL],
    "chat-ppo": ["train", "chat-ppo", *CHAT, "--minibatches", "1", *SMALL],
    "best-of-n": ["train", "best-of-n", "--model", "tiny", *SMALL],
    "sft": ["train", "sft", "--trajectories", "episodes.parquet", *ROWS],
    "dpo": ["train", "dpo", "--pairs", "pairs.parquet", *ROWS],
}
POLICY = {"compare": "--policies", "generate": "--annotator", "dagger": "--annotator"}
CASE = {"sft": "--play-cases", "dpo": "--play-cases"}
WITHOUT_POLICY = ("sb3-ppo", "rllib-ppo", "grpo", "chat-ppo", "best-of-n", "sft", "dpo")
WITHOUT_REWARD = ("sft", "dpo")

POLICIES = [
    ("my_pkg.polices:Bright", "did you mean 'my_pkg.policies'"),
    ("./bright.py:Brigth", "(did you mean 'Bright'?); it holds: Bright, NUMBER"),
    ("bright:no_codec", "no_codec() cannot be called as factory(codec, **options)"),
    ("bright:Bright?treshold=1", "did you mean 'threshold'"),
]
SOURCES = [
    ("./case.py:Squares", "(did you mean 'cases.py'?); that folder holds"),
    ("./cases.py:Square", "(did you mean 'Squares' or 'squares'?); it holds: Keyless, Squares"),
    ("cases:Squares?lvel=3", "did you mean 'level'"),
    ("rewarding:no_episode", "a CaseSource or Cases are wanted, or a function that returns them"),
]
REWARDS = [
    ("./rewarding.py:final_uoi", "(did you mean 'final_iou'?); it holds: "),
    (
        "rewading:final_iou",
        "(did you mean 'rewarding'?); nor is 'rewading' a module in the current",
    ),
    ("rewarding:no_episode", "cannot be called as reward(episode, **options)"),
    ("rewarding:final_iou?wieght=2", "did you mean 'weight'"),
]


def trials():
    for name, words in COMMANDS.items():
        out = [] if name == "play" else ["--out", "x"]
        if name not in WITHOUT_POLICY:
            for policy, answer in POLICIES:
                cases = [] if name == "run" else CASES
                yield name, [*words, *cases, *out, POLICY.get(name, "--policy"), policy], answer
        if name != "run":
            for cases, answer in SOURCES:
                yield name, [*words, *out, CASE.get(name, "--cases"), cases], answer
        if name not in WITHOUT_REWARD:
            for reward, answer in REWARDS:
                cases = [] if name == "run" else CASES
                yield name, [*words, *cases, *out, "--reward", reward], answer


@pytest.fixture
def start(request, own_folder, medseg):
    """Files that a command reads before it looks at its cases."""
    if request.param in ("grpo", "chat-ppo", "best-of-n", "sft", "dpo"):
        from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

        small = TinyConfig(image_size=64, hidden=64, layers=2, vision_layers=1)
        build_tiny("tiny", ["bright square, 5 calls."], small)
    if request.param in ("sft", "dpo"):
        for annotator in ("bright:Bright", "centre-box"):
            medseg("trajectories", "generate", "--annotator", annotator, "--seed",
                   len(annotator), *CASES, *SMALL,
                   "--limit", "2", "--out", "store")  # fmt: skip
        view = ("--image-size", "64", "--texts", "terse")
        medseg("trajectories", "export", "store", "episodes.parquet", *view)
        medseg("trajectories", "pairs", "store", "pairs.parquet", "--margin", "0.001", *view)
    return request.param


def runs_ray() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@pytest.mark.parametrize("start", COMMANDS, indirect=True)
def test_a_wrong_name_is_answered(start, medseg) -> None:
    if start in ("rllib-ppo", "grpo", "chat-ppo"):
        pytest.importorskip("ray")
    answers, before = {}, runs_ray()  # a cluster of another test may be there
    for name, words, answer in trials():
        if name == start:
            with pytest.raises(MedSegError) as refused:
                medseg(*words)
            answers[tuple(words[-2:])] = answer, str(refused.value)
    wrong = {words: told for words, (answer, told) in answers.items() if answer not in told}
    assert answers and not wrong, "\n".join(f"{w}: {t}" for w, t in wrong.items())
    if start in (*WITHOUT_POLICY, "dagger"):
        assert not Path("x/config.json").exists(), (
            "the folder of a run that never began would be in the way"
        )
    assert runs_ray() == before
