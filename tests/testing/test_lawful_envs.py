"""check_vector_env passes environments that keep the laws, and says what it skipped and why."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import ClipReward
from tiny_env import DISABLED, MODES, TinyEnv, TinyVectorEnv, check

from medseg_gym.testing.check_vector_env import CHECKS, VectorEnvError, check_vector_env

BY_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)


@pytest.fixture
def tiny_id():
    """TinyEnv registered with and without a native vector environment: ids by kind."""
    gym.register("TinySync-v0", TinyEnv)
    gym.register("TinyNative-v0", TinyEnv, vector_entry_point=TinyVectorEnv)
    yield {"sync": "TinySync-v0", "native": "TinyNative-v0"}
    gym.registry.pop("TinySync-v0")
    gym.registry.pop("TinyNative-v0")


def skipped_by_mode(mode: AutoresetMode) -> set[str]:
    return set() if mode == DISABLED else {"reset mask", "reset options"}


@BY_MODE
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_lawful_native_environment_passes_every_check(mode, n):
    report = check(TinyVectorEnv, mode, n)
    assert [result.name for result in report.results] == list(CHECKS)
    alone = {"permutation", "neighbours"} | ({"reset options"} if mode == DISABLED else set())
    assert set(report.skipped) == skipped_by_mode(mode) | (alone if n == 1 else set())


@BY_MODE
@pytest.mark.parametrize("kind", ["sync", "native"])
def test_partners_are_built_from_the_spec(mode, kind, tiny_id):
    kwargs = {"vector_kwargs": {"autoreset_mode": mode}} if kind == "sync" else {}
    if kind == "native":
        kwargs["autoreset_mode"] = mode
    envs = gym.make_vec(tiny_id[kind], num_envs=3, **kwargs)
    report = check_vector_env(envs)
    gymnasium_pops = {"reset options"} if kind == "sync" and mode == DISABLED else set()
    assert set(report.skipped) == skipped_by_mode(mode) | {"time limit"} | gymnasium_pops
    if gymnasium_pops:
        assert "pop reset_mask from the caller's dict" in report.skipped["reset options"]


@BY_MODE
def test_cartpole_passes_with_a_time_limit_taken_from_the_call(mode):
    envs = gym.make_vec(
        "CartPole-v1",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        max_episode_steps=10,
    )
    report = check_vector_env(envs)
    assert {"time limit", "num_envs", "single against vector"} <= set(report.passed)
    envs.close()


def test_without_a_spec_the_report_says_what_was_skipped_and_why():
    envs = SyncVectorEnv([TinyEnv] * 3)
    report = check_vector_env(envs)
    assert report.skipped["num_envs"] == "envs.spec is None; pass make_vector="
    assert report.skipped["single against vector"] == "envs.spec is None; pass make_single="
    assert "skipped  num_envs: envs.spec is None" in str(report)
    assert "passed   permutation" in str(report)


def test_a_wrapped_environment_is_not_compared_with_unwrapped_ones():
    def wrapped(n: int) -> VectorEnv:
        return ClipReward(SyncVectorEnv([TinyEnv] * n), 0, 0.5)

    assert "wrapper ClipReward" in check_vector_env(wrapped(2)).skipped["num_envs"]
    assert "num_envs" in check_vector_env(wrapped(2), make_vector=wrapped).passed


def test_episodes_that_never_end_are_reported():
    class Endless(TinyEnv):
        def step(self, action):
            observation, reward, _, _, _ = super().step(action)
            self.steps = 0
            return {**observation, "position": np.zeros(2, np.float32)}, reward, False, False, {}

    report = check_vector_env(SyncVectorEnv([Endless] * 2), make_single=Endless)
    assert report.skipped["new episode"] == "no episode ended in 200 random steps"


def test_nondeterministic_environments_are_excused():
    class Loud(TinyVectorEnv):
        spec = EnvSpec("Loud-v0", nondeterministic=True)

        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            noise = np.random.default_rng().normal(size=self.num_envs)
            return observations, np.where(rewards == 0, 0, noise), *rest

    report = check(Loud)
    assert report.skipped["repeat"] == "Loud-v0 is registered as nondeterministic"


def test_atol_forgives_floats_across_batch_sizes_and_nothing_else():
    def nudged(by: float) -> type[TinyVectorEnv]:
        class Nudged(TinyVectorEnv):
            def step(self, actions):
                observations, rewards, *rest = super().step(actions)
                return observations, np.where(rewards == 0, 0, rewards + by * self.num_envs), *rest

        return Nudged

    check(nudged(1e-7), atol=1e-6)
    with pytest.raises(VectorEnvError, match="pass atol="):
        check(nudged(1e-7))
    with pytest.raises(VectorEnvError):
        check(nudged(1e-3), atol=1e-6)
