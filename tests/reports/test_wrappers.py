"""Wrappers of gymnasium and Stable-Baselines3 round the environments."""

import copy
import warnings

import gymnasium as gym
import numpy as np
import pytest

import medseg_gym  # noqa: F401
from medseg_gym.cases import Case

BOX = '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [200, 200, 800, 800]}}</tool_call>'


def square(key, height, width):
    image = np.random.default_rng(1).integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[12:30, 20:44] = True
    image[mask] += 120
    return Case(key, image, mask, "bright square", synthetic=True)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["MedSeg-v0", "MedSegChat-v0"])
def test_a_batch_of_different_shapes_is_recorded_as_video(env_id, tmp_path):
    envs = gym.make_vec(
        env_id,
        num_envs=2,
        cases=[square("wide", 48, 64), square("tall", 64, 48)],
        split=None,
        backbone="ellipse",
        image_size=32,
        max_steps=2,
        render_mode="rgb_array",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of moviepy
        recorded = gym.wrappers.vector.RecordVideo(
            envs, str(tmp_path), episode_trigger=lambda number: True
        )
        recorded.reset(options={"case": ["wide", "tall"]})
        frames = envs.render()
        actions = [BOX, BOX] if "Chat" in env_id else np.array([[0, 200, 200, 800, 800]] * 2)
        for _ in range(6):
            recorded.step(actions)
        recorded.close()
    assert list(tmp_path.glob("*.mp4"))
    assert len(frames) == 2
    (shape,) = {frame.shape for frame in frames}
    assert shape[0] % 2 == shape[1] % 2 == 0


@pytest.fixture
def adapter():
    pytest.importorskip("stable_baselines3")
    from medseg_agents.arrays.sb3 import MedSegVecEnv

    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=2,
        cases="phantoms",
        backbone="ellipse",
        image_size=32,
        autoreset_mode="same_step",
    )
    adapter = MedSegVecEnv(envs)
    yield adapter
    adapter.close()


def play(wrapped):
    """Observations of a reset and of three random steps."""
    seen = [wrapped.reset()]
    for _ in range(3):
        actions = np.stack([wrapped.action_space.sample() for _ in range(wrapped.num_envs)])
        seen.append(wrapped.step(actions)[0])
    return seen


def test_normalising_changes_nobody_elses_space(adapter):
    from stable_baselines3.common.vec_env import VecNormalize

    before = copy.deepcopy((adapter.envs.single_observation_space, adapter.observation_space))
    play(VecNormalize(adapter, norm_obs_keys=["image"]))
    assert (adapter.envs.single_observation_space, adapter.observation_space) == before


def test_frames_are_stacked(adapter):
    from stable_baselines3.common.vec_env import VecFrameStack

    wrapped = VecFrameStack(adapter, n_stack=2)
    for seen in play(wrapped):
        assert wrapped.observation_space.contains({key: value[0] for key, value in seen.items()})
        assert seen["image"].shape == (2, 32, 32, 6)
