"""SB3's own vector wrappers round the adapter, and its vectors of single environments."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.sb3 import MedSegVecEnv, PromptPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.episodes.rewards import RewardValue
from medseg_gym.errors import MedSegError, PolicyError

CLICKS = ("positive_point", "negative_point", "stop")
OPTIONS = {"backbone": "ellipse", "image_size": 40, "bins": 16, "tools": CLICKS, "max_steps": 3}
SCALARS = ["steps_left", "target"]


def adapter(cases, num_envs=3, **options):
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=num_envs,
        cases=cases,
        autoreset_mode="same_step",
        **{**OPTIONS, **options},
    )
    return MedSegVecEnv(envs)


def play(env, steps=8, inside=True):
    """Play; every observation lies in its space, the last one of an episode too.

    SB3's VecNormalize keeps the old bounds of what is no image, so its observations do not.
    """
    generator = np.random.default_rng(0)
    seen = [env.reset()]
    ended = 0
    for _ in range(steps):
        nvec = env.action_space.nvec
        actions = generator.integers(nvec, size=(env.num_envs, 5))
        observation, rewards, dones, infos = env.step(actions)
        assert np.isfinite(rewards).all()
        seen.append(observation)
        for slot in np.flatnonzero(dones):
            ended += 1
            last = infos[slot]["terminal_observation"]
            assert not inside or env.observation_space.contains(last)
    assert ended
    for observation in seen if inside else ():
        for slot in range(env.num_envs):
            one = {key: value[slot] for key, value in observation.items()}
            assert env.observation_space.contains(one)
    return seen


def learn(env, **options):
    model = PPO("MultiInputPolicy", env, n_steps=4, batch_size=4, n_epochs=1, seed=0, **options)
    model.learn(8 * env.num_envs)
    return model


WRAPPERS = {
    "VecNormalize, all": lambda env: VecNormalize(env),
    "VecNormalize, numbers": lambda env: VecNormalize(env, norm_obs_keys=SCALARS),
    "VecNormalize, rewards": lambda env: VecNormalize(env, norm_obs=False),
    "VecFrameStack": lambda env: VecFrameStack(env, n_stack=2),
    "VecFrameStack, first": lambda env: VecFrameStack(env, n_stack=3, channels_order="first"),
    "VecMonitor": lambda env: VecMonitor(env),
    "VecCheckNan": lambda env: VecCheckNan(env, raise_exception=True),
    "VecTransposeImage": lambda env: VecTransposeImage(env),
    "all together": lambda env: VecCheckNan(
        VecMonitor(VecFrameStack(VecNormalize(env, norm_obs_keys=SCALARS), 2)), raise_exception=True
    ),
}
LEARNS = [name for name in WRAPPERS if name not in ("VecNormalize, all", "VecFrameStack, first")]


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.filterwarnings("ignore:.*already wrapped with a `Monitor`:UserWarning")
def test_wrappers_run_and_leave_the_adapter_as_it_was(name, small_cases):
    env = adapter(small_cases)
    names = ("single_observation_space", "single_action_space", "observation_space", "action_space")
    before = copy.deepcopy([getattr(env.envs, n) for n in names])
    shown = copy.deepcopy((env.observation_space, env.action_space))
    play(WRAPPERS[name](env), inside="Normalize" not in name and name != "all together")
    assert [getattr(env.envs, n) for n in names] == before
    assert (env.observation_space, env.action_space) == shown
    play(env)


@pytest.mark.parametrize("name", LEARNS)
@pytest.mark.filterwarnings("ignore:.*already wrapped with a `Monitor`:UserWarning")
def test_ppo_learns_through_them(name, small_cases):
    env = WRAPPERS[name](adapter(small_cases))
    model = learn(env)
    actions, _ = model.predict(env.reset(), deterministic=True)
    assert actions.shape == (3, 5)


def test_a_part_can_be_taken_out(small_cases):
    env = VecExtractDictObs(adapter(small_cases), key="image")
    assert env.reset().shape == (3, 40, 40, 3) and env.observation_space.contains(env.reset()[0])


def test_stacked_frames_are_those_of_the_steps(small_cases):
    plain, stacked = adapter(small_cases), VecFrameStack(adapter(small_cases), n_stack=2)
    for env in (plain, stacked):
        env.seed(4)
    previous, result = plain.reset(), stacked.reset()
    click = np.tile([0, 5, 5, 0, 0], (3, 1))
    for _ in range(2):
        newest, result = plain.step(click)[0], stacked.step(click)[0]
        for key, value in newest.items():
            both = np.concatenate([previous[key], value], -1)
            np.testing.assert_array_equal(result[key], both)
        previous = newest


def test_the_target_is_one_hot_as_sb3_would_make_it(small_cases):
    env = adapter(small_cases)
    assert isinstance(env.observation_space["target"], spaces.Box)
    assert env.observation_space["target"].shape == (4,)
    env.set_options([{"case": case.key} for case in small_cases[2:5]])
    native = env.envs.single_observation_space["target"]
    assert isinstance(native, spaces.Discrete)
    observation = env.reset()
    targets = env.envs.view.targets
    expected = [1 + targets.index(case.target) for case in small_cases[2:5]]
    assert observation["target"].argmax(1).tolist() == expected
    unknown = adapter(small_cases, targets=["something else"])
    assert (unknown.reset()["target"] == [1, 0]).all()
    nothing = adapter(small_cases, targets=[])
    assert (nothing.reset()["target"] == [[1]]).all()


def test_the_shared_network_reads_the_adapter_and_refuses_stacked_frames(small_cases):
    kwargs = {"network": NetworkConfig(width=4, tools=CLICKS)}
    env = adapter(small_cases)
    PPO(PromptPolicy, env, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs=kwargs).learn(12)
    alone = adapter(small_cases, targets=[])
    PPO(PromptPolicy, alone, n_steps=4, batch_size=4, n_epochs=1, policy_kwargs=kwargs).learn(12)
    with pytest.raises(PolicyError, match="stacked frames"):
        PPO(PromptPolicy, VecFrameStack(env, 2), policy_kwargs=kwargs)


@pytest.mark.filterwarnings("ignore")  # moviepy's
def test_videos_of_batches_of_different_sizes(small_cases, tmp_path):
    pytest.importorskip("moviepy")
    env = adapter(small_cases, render_mode="rgb_array")
    recorder = VecVideoRecorder(env, str(tmp_path), lambda step: step == 0, video_length=6)
    play(recorder)
    recorder.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 1


def test_a_reward_that_is_nan_never_reaches_the_learner(small_cases):
    def ill(episode):
        return RewardValue(float("nan"), {})

    env = VecNormalize(adapter(small_cases, reward=ill), norm_obs=False)
    env.reset()
    with pytest.raises(MedSegError, match="no finite number"):
        env.step(np.tile([0, 5, 5, 0, 0], (3, 1)))


# vectors of single environments --------------------------------------------------------------


def build():
    return gym.make("MedSeg-v0", cases="phantoms:fundus", **OPTIONS)


def play_singles(env):
    env.seed(3)
    observation = env.reset()
    rewards = []
    click = np.tile([0, 8, 8, 0, 0], (env.num_envs, 1))
    for _ in range(7):
        observation, reward, *_ = env.step(click)
        rewards.append(reward)
    env.close()
    return observation, np.array(rewards)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_subproc_vec_env_of_single_environments(method):
    serial = play_singles(DummyVecEnv([build, build]))
    parallel = play_singles(SubprocVecEnv([build, build], start_method=method))
    for key, value in serial[0].items():
        np.testing.assert_array_equal(value, parallel[0][key])
    np.testing.assert_allclose(serial[1], parallel[1], rtol=1e-6)  # float32 in one of them


@pytest.mark.slow
def test_wrapped_processes_learn():
    env = make_vec_env(
        build, n_envs=2, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}
    )
    learn(VecNormalize(env, norm_obs_keys=["steps_left"]))
    env.close()
