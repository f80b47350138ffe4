"""Stable-Baselines3 trains on volumes, one environment or the native batch."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from medseg_agents.arrays.sb3.vec_env import MedSegVecEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import medseg_gym  # noqa: F401

SMALL = {
    "cases": "phantoms-volume",
    "backbone": "ellipse",
    "image_size": 40,
    "overview_size": 36,
    "slices": 8,
    "bins": 16,
    "max_steps": 4,
}


def batch(num_envs=3, **options):
    return MedSegVecEnv(
        gym.make_vec(
            "MedSegVolume-v0", num_envs=num_envs, autoreset_mode="same_step", **SMALL, **options
        )
    )


def single():
    return DummyVecEnv([lambda: gym.make("MedSegVolume-v0", **SMALL)])


@pytest.mark.parametrize("make", [batch, single])
def test_ppo_with_several_inputs_learns_from_volumes(make):
    env = make()
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    before = [weight.detach().clone() for weight in model.policy.parameters()]
    model.learn(16)
    after = list(model.policy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(weight).all() for weight in after)
    action, _ = model.predict(env.reset(), deterministic=True)
    assert action.shape == (env.num_envs, 6)
    env.close()


def test_the_batch_says_what_sb3_expects_of_an_end():
    env = batch()
    env.seed(1)
    env.reset()
    for step in range(4):
        actions = np.stack([env.action_space.sample() for _ in range(3)])
        actions[:, 0] = 4  # look
        _, rewards, done, infos = env.step(actions)
        assert np.allclose(rewards, -0.01) and done.all() == (step == 3)
    for info in infos:
        assert info["episode"]["l"] == 4 and info["episode"]["r"] == pytest.approx(-0.04)
        assert info["terminal_observation"]["overview"].shape == (36, 36, 3)
        assert not info["TimeLimit.truncated"] and info["tool"] == "look"
    env.close()
