"""Small volumes, and a tiny language model that has learned to make calls on them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("trl")

from medseg_agents.llm.checkpoint import save_view
from medseg_agents.llm.tiny_model import VOLUME_CALL_WORDS, TinyConfig, build_tiny

from medseg_gym.cases import VolumeCase
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, Stop
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, encode_volume_call

from ..conftest import played, teach
from ..rllib.conftest import ray_cluster  # noqa: F401  (a fixture)

ENV = "MedSegVolumeChat-v0"
VIEW = {"image_size": 64, "overview_size": 32, "texts": "terse"}
IMAGE_TOKENS = (16, 12)
"""Tokens of a turn's slice (64 x 64 pixels) and overview (32 x 96): a token is 16 x 16 pixels."""


def volumes() -> list[VolumeCase]:
    """Four volumes of different shapes."""
    made = []
    for number, shape in enumerate([(7, 24, 30), (5, 32, 32), (9, 20, 16), (6, 28, 28)]):
        rng = np.random.default_rng(number)
        mask = np.zeros(shape, bool)
        mask[2:4, 6:14, 5:12] = True
        image = (rng.integers(0, 60, shape) + 150 * mask).astype(np.uint8)
        made.append(VolumeCase(f"v{number}", image, mask, f"organ {number % 2}", "CT"))
    return made


def options(**other) -> dict:
    """Arguments of the environment."""
    return {"cases": volumes(), "backbone": "ellipse", "max_steps": 3, **VIEW, **other}


def answers(turn: int, variant: int) -> str:
    """Completions to learn: a box, then propagation, a look, a click or nothing, then stop."""
    box = SlicePrompt(2, AddBox(0.2505, 0.2505, 0.5005, 0.7505 if variant % 2 else 0.5005))
    second = (Propagate(), Look(3), SlicePrompt(3, AddPoint(0.3005, 0.4005)))[variant % 3]
    if turn == 1 and variant == 3:
        return "Let me see."
    return encode_volume_call((box, second, Stop())[turn])


@pytest.fixture(scope="session")
def volume_caller(tmp_path_factory):
    """Folder of the model, whose view says what it was trained for."""
    envs = make_envs(4, ENV, **options())
    conversations, texts = played(envs, [case.key for case in volumes()], answers)
    size = TinyConfig(image_size=64, other_images=((32, 96),), hidden=64, layers=2, vision_layers=1)
    path = build_tiny(tmp_path_factory.mktemp("caller"), texts, size, VOLUME_CALL_WORDS)
    teach(path, conversations)
    save_view(path, VIEW, {}, ENV)
    return path
