"""The adapter between the native batch and SB3."""

import gymnasium as gym
import numpy as np
import pytest
from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.sb3 import MedSegVecEnv, PromptPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

import medseg_gym  # noqa: F401
from medseg_gym.errors import MedSegError

CLICKS = ("positive_point", "negative_point", "stop")


def make(small_cases, num_envs=4, mode="same_step", **options):
    return gym.make_vec(
        "MedSeg-v0",
        num_envs=num_envs,
        autoreset_mode=mode,
        cases=small_cases,
        backbone="ellipse",
        image_size=32,
        bins=16,
        tools=CLICKS,
        max_steps=3,
        **options,
    )


def test_sb3s_own_checks_pass_on_the_single_environment(small_cases):
    check_env(gym.make("MedSeg-v0", backbone="ellipse", cases=small_cases), warn=True)


def assert_same(ours, theirs):
    """Equal but for the target, which is one-hot here."""
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        if key == "target":
            assert (ours[key].sum(-1) == 1).all() and ours[key].dtype == np.float32
            assert np.array_equal(ours[key].argmax(-1), value)
        else:
            assert np.array_equal(ours[key], value)


def test_steps_are_those_of_the_native_batch_and_ends_carry_the_last_observation(small_cases):
    adapter, native = MedSegVecEnv(make(small_cases)), make(small_cases)
    adapter.seed(7)
    ours, (theirs, _) = adapter.reset(), native.reset(seed=7)
    rng = np.random.default_rng(0)
    returns, lengths, ended = np.zeros(4), np.zeros(4, int), 0
    for _ in range(12):
        assert_same(ours, theirs)
        actions = rng.integers(0, [3, 16, 16, 16, 16], (4, 5))
        ours, rewards, dones, infos = adapter.step(actions)
        theirs, native_rewards, terminated, truncated, native_infos = native.step(actions)
        assert np.array_equal(dones, terminated | truncated)
        np.testing.assert_allclose(rewards, native_rewards, rtol=1e-6)
        returns, lengths = returns + native_rewards, lengths + 1
        for slot in np.flatnonzero(dones):
            ended += 1
            info = infos[slot]
            last = native_infos["final_obs"][slot]
            assert_same(info["terminal_observation"], last)
            assert info["episode"]["r"] == pytest.approx(returns[slot])
            assert info["episode"]["l"] == lengths[slot]
            assert info["episode"]["dice"] == native_infos["final_info"]["dice"][slot]
            assert info["TimeLimit.truncated"] is False
            returns[slot] = lengths[slot] = 0
        for slot in np.flatnonzero(~dones):
            assert infos[slot]["case"] == native_infos["case"][slot]
            assert "terminal_observation" not in infos[slot]
    assert ended > 5


def test_a_time_limit_truncates_and_says_so(small_cases):
    adapter = MedSegVecEnv(make(small_cases, max_episode_steps=2))
    adapter.reset()
    click = np.tile([0, 3, 3, 0, 0], (4, 1))
    assert not adapter.step(click)[2].any()
    *_, dones, infos = adapter.step(click)
    assert dones.all() and all(info["TimeLimit.truncated"] for info in infos)


def test_observations_are_not_reused(small_cases):
    adapter = MedSegVecEnv(make(small_cases))
    first = adapter.reset()
    kept = {key: value.copy() for key, value in first.items()}
    for _ in range(3):
        adapter.step(np.tile([0, 3, 3, 0, 0], (4, 1)))
    assert all(np.array_equal(first[key], kept[key]) for key in kept)


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_other_autoreset_modes_are_refused(small_cases, mode):
    with pytest.raises(MedSegError, match='autoreset_mode="same_step"'):
        MedSegVecEnv(make(small_cases, mode=mode))


def test_reset_options_choose_cases_per_slot(small_cases):
    adapter = MedSegVecEnv(make(small_cases))
    keys = [case.key for case in small_cases[:4]]
    adapter.set_options([{"case": key} for key in keys])
    adapter.reset()
    assert [info["case"] for info in adapter.reset_infos] == keys


def test_attributes_and_methods_are_the_batchs(small_cases):
    adapter = MedSegVecEnv(make(small_cases))
    assert adapter.get_attr("num_envs", [0, 2]) == [4, 4]
    assert adapter.env_is_wrapped(Monitor, 0) == [True]
    assert adapter.env_is_wrapped(VecNormalize) == [False] * 4
    with pytest.raises(MedSegError, match="one batch"):
        adapter.env_method("reset", indices=[0])
    adapter.set_attr("max_episode_steps", 1)
    assert adapter.envs.max_episode_steps == 1


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_evaluate_policy_and_eval_callback_run_clean(small_cases, tmp_path):
    env = MedSegVecEnv(make(small_cases))
    network = NetworkConfig(width=4, tools=CLICKS)
    model = PPO(
        PromptPolicy, env, n_steps=8, batch_size=16, policy_kwargs={"network": network}, seed=0
    )
    mean, spread = evaluate_policy(model, MedSegVecEnv(make(small_cases)), n_eval_episodes=6)
    assert np.isfinite(mean) and spread >= 0
    callback = EvalCallback(
        MedSegVecEnv(make(small_cases)),
        eval_freq=8,
        n_eval_episodes=4,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    model.learn(64, callback)
    assert callback.evaluations_timesteps == [32, 64]
    loaded = PPO.load(tmp_path / "best_model.zip")
    observation = env.reset()
    assert loaded.predict(observation, deterministic=True)[0].shape == (4, 5)
