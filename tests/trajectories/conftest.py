import gymnasium as gym
import pytest

import medseg_gym  # noqa: F401
from medseg_gym.trajectories import VectorRecorder


@pytest.fixture
def make_store(small_cases, tmp_path):
    """Random actions (or a policy's) recorded on the small cases; returns the folder."""

    def make(steps=30, num_envs=3, name="store", seed=0, **options):
        options = {"cases": small_cases, "backbone": "ellipse", "image_size": 32, **options}
        envs = gym.make_vec("MedSeg-v0", num_envs=num_envs, **options)
        envs = VectorRecorder(envs, tmp_path / name, seed=seed, policy="random")
        envs.reset(seed=seed)
        envs.action_space.seed(seed)
        for _ in range(steps):
            envs.step(envs.action_space.sample())
        envs.close()
        return tmp_path / name

    return make
