"""RLlib plays and learns on volumes, with its own connector and network."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from medseg_agents.arrays.rllib.callbacks import MedSegCallback
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

OPTIONS = {
    "cases": "phantoms-volume",
    "backbone": "ellipse",
    "image_size": 8,
    "overview_size": 8,
    "slices": 4,
    "bins": 8,
    "max_steps": 3,
}


@pytest.fixture
def algo(ray_cluster):
    config = (
        PPOConfig()
        .environment("medseg_gym:MedSegVolume-v0", env_config=OPTIONS)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=2,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .callbacks(MedSegCallback)
        .training(train_batch_size_per_learner=16, minibatch_size=8, num_epochs=1, gamma=1.0)
    )
    algo = config.build_algo()
    yield algo
    algo.stop()


def test_it_takes_the_spaces_and_learns(algo):
    runner = algo.env_runner
    seen, done = runner.env.single_observation_space, runner.env.single_action_space
    for episode in runner.sample(num_episodes=2, random_actions=True):
        assert len(episode) <= 3
        for number in range(len(episode)):
            flat = episode.get_observations(number)
            assert flat.shape == (gym.spaces.flatdim(seen),) and np.isfinite(flat).all()
            assert done.contains(np.asarray(episode.get_actions(number)))
        gains = sum(episode.get_rewards())
        start, end = episode.get_infos(0), episode.get_infos(-1)
        assert gains <= end["dice"] - start["dice"] + 1e-6  # less what the steps cost
    before = {k: np.array(v) for k, v in runner.module.get_state().items()}
    result = algo.train()
    assert 0 <= result["env_runners"]["dice"] <= 1
    after = algo.env_runner.module.get_state()
    assert any(not np.array_equal(before[k], np.asarray(after[k])) for k in before)
