"""Stable-Baselines3 trains on volumes, one environment or the native batch."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from medseg_agents import policies
from medseg_agents.arrays.sb3 import save_policy
from medseg_agents.arrays.sb3.vec_env import MedSegVecEnv
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.policies.trained import SB3_WEIGHTS
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs

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


@pytest.mark.parametrize("make", [batch, single])
def test_what_was_trained_plays_by_name(make, tmp_path):
    env = make()
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", seed=0)
    model.learn(16)
    checkpoint = save_policy(model, tmp_path / "run")
    assert checkpoint.name == f"step-{model.num_timesteps:09d}"
    spec = policies.make(f"sb3:{tmp_path / 'run'}")
    assert spec.plays_volumes and spec.view["slices"] == 8
    envs = make_envs(2, spec.env_id, cases="phantoms-volume", backbone="ellipse", **spec.view)
    observations, _ = envs.reset(seed=4)
    policy = spec.build(envs)
    shown = {**observations, "target": observations["target"]}
    if make is batch:
        shown["target"] = np.eye(len(spec.view["targets"]) + 1)[shown["target"]].astype(np.float32)
    expected, _ = model.predict(shown, deterministic=True)
    np.testing.assert_array_equal(policy.act(observations), expected)
    sampled = policies.make(f"sb3:{tmp_path / 'run'}?sampled=true").build(envs)
    rows = []
    for _ in range(2):
        sampled.reset([0, 1], [np.random.default_rng(slot) for slot in range(2)])
        rows.append(sampled.act(observations))
    np.testing.assert_array_equal(*rows)
    assert envs.action_space.contains(rows[0]) and (rows[0] != expected).any()
    envs.close()
    env.close()


def test_eval_and_compare_take_it_beside_an_oracle(tmp_path):
    env = batch()
    save_policy(PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, device="cpu"), tmp_path / "r")
    names = ["oracle-key-slice", f"sb3:{tmp_path / 'r'}"]
    options = CompareOptions(
        cases="phantoms-volume", limit=2, backbones=("ellipse",), volume_steps=3
    )
    comparison = compare([policies.make(name) for name in names], options, tmp_path / "out")
    rows = {row["policy"]: row for row in comparison.volumes.rows}
    assert list(rows) == names and all(row["volumes"] == 2 for row in rows.values())
    assert rows[names[1]]["turns"] <= 3
    (tmp_path / "r" / "checkpoints" / "step-000000000" / SB3_WEIGHTS).write_bytes(b"{")
    with pytest.raises(PolicyError, match="no policy of this view"):
        compare([policies.make(names[1])], options, tmp_path / "again")
    env.close()


def test_what_cannot_be_kept_says_why(tmp_path):
    env = batch()
    plain = {"n_steps": 8, "batch_size": 8, "device": "cpu"}
    stacked = PPO("MultiInputPolicy", VecFrameStack(env, 2), **plain)
    with pytest.raises(MedSegError, match="VecFrameStack changes what the policy sees"):
        save_policy(stacked, tmp_path / "run")

    class Own(torch.nn.Tanh):
        pass

    own = PPO("MultiInputPolicy", env, policy_kwargs={"activation_fn": Own}, **plain)
    with pytest.raises(MedSegError, match="class of your own"):
        save_policy(own, tmp_path / "run")
    own.save(tmp_path / "ppo.zip")
    with pytest.raises(PolicyError, match="SB3's own file, which holds pickles"):
        policies.make(f"sb3:{tmp_path / 'ppo.zip'}")
    (tmp_path / "rllib").mkdir()
    (tmp_path / "rllib" / "rllib_checkpoint.json").write_text("{}")
    with pytest.raises(PolicyError, match="RLlib's own checkpoint"):
        policies.make(f"rllib:{tmp_path / 'rllib'}")
    env.close()
