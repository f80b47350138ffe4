"""A training run that takes seconds."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def small_run() -> dict:
    """Settings of a run on synthetic cases with the image-blind segmenter."""
    return {
        "cases": "phantoms:fundus",
        "pool": 8,
        "backbone": "ellipse",
        "image_size": 32,
        "bins": 16,
        "max_steps": 3,
        "num_envs": 4,
        "rollout": 16,
        "minibatch": 32,
        "epochs": 2,
        "width": 4,
        "steps": 128,
        "eval_every": 64,
        "eval_cases": 4,
        "checkpoint_every": 64,
        "test_cases": 0,
    }
