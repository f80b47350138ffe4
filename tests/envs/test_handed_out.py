"""Arrays that an environment returns belong to the caller: changing them changes nothing else."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

import medseg_gym  # noqa: F401  (registers the ids)

IDS = ["MedSeg-v0", "MedSegChat-v0"]
SPACES = ["single_observation_space", "single_action_space", "observation_space", "action_space"]


def make_vec(env_id, cases, **options):
    options = {"backbone": "ellipse", "image_size": 32, **options}
    return gym.make_vec(env_id, num_envs=2, cases=cases, **options).unwrapped


def make_one(env_id, cases):
    return gym.make(env_id, cases=cases, backbone="ellipse", image_size=32).unwrapped


def spoil(space):
    """Change a space in place in every way that its kind allows."""
    if isinstance(space, spaces.Dict):
        space.spaces["image"] = spaces.Box(-10, 10, (1,), np.float32)
        space.spaces["more"] = spaces.Discrete(2)
    elif isinstance(space, spaces.Box):
        space.high[...] = 1
    elif isinstance(space, spaces.MultiDiscrete):
        space.nvec[...] = 2
    elif isinstance(space, spaces.Tuple):
        space.spaces = space.spaces[:1]
    else:
        space.tools = ("stop",)


def all_spaces(env):
    names = SPACES if isinstance(env, gym.vector.VectorEnv) else SPACES[2:]
    return [(name, getattr(env, name)) for name in names]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("make", [make_vec, make_one])
def test_a_space_that_somebody_changes_is_theirs_alone(env_id, make, small_cases):
    env = make(env_id, small_cases)
    for name, space in all_spaces(env):
        before = copy.deepcopy(space)
        spoil(space)
        assert space != before
        assert getattr(env, name) == before, name
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("env_id", IDS)
def test_two_readers_of_an_observation_space_do_not_see_each_other(env_id, small_cases):
    envs = make_vec(env_id, small_cases)
    for name in ("single_observation_space", "observation_space"):
        mine, yours = getattr(envs, name), getattr(envs, name)
        mine["image"].low[...] = 7
        spoil(mine)
        assert mine != yours == getattr(envs, name)
    assert envs.observation_space == batch_space(envs.single_observation_space, 2)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("make", [make_vec, make_one])
def test_a_seeded_action_space_stays_seeded(env_id, make, small_cases):
    env, other = make(env_id, small_cases), make(env_id, small_cases)
    drawn = []
    for one in (env, other):
        one.action_space.seed(5)
        drawn.append([one.action_space.sample() for _ in range(3)])
    np.testing.assert_equal(drawn[0], drawn[1])


@pytest.mark.parametrize("env_id", IDS)
def test_metadata_of_one_environment_is_not_its_classs(env_id, small_cases):
    env = make_one(env_id, small_cases)
    env.metadata["render_fps"] = 99
    env.metadata["render_modes"].append("none")
    assert make_one(env_id, small_cases).metadata == type(env).metadata
    assert type(env).metadata["render_fps"] == 2 and "autoreset_mode" not in type(env).metadata
    envs = make_vec(env_id, small_cases)
    envs.metadata["render_modes"].append("none")
    assert make_vec(env_id, small_cases).metadata["render_modes"] == ["rgb_array"]


def test_observations_infos_and_lists_are_fresh(small_cases):
    envs = make_vec("MedSeg-v0", small_cases, autoreset_mode="same_step", max_steps=1)
    twin = make_vec("MedSeg-v0", small_cases, autoreset_mode="same_step", max_steps=1)
    box = np.tile([0, 200, 200, 800, 800], (2, 1))
    for step in range(4):
        if step == 0:
            (mine, info), (theirs, _) = envs.reset(seed=0), twin.reset(seed=0)
        else:
            mine, rewards, ended, cut, info = envs.step(box)
            theirs, *_ = twin.step(box)
            rewards += 1
            ended[:] = cut[:] = False
            for final in info["final_obs"]:
                final["image"][:] = 9
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])
            mine[key][:] = 0
        info.clear()
        envs.episodes.clear()


def test_chat_schemas_and_messages_are_fresh(small_cases):
    envs = make_vec("MedSegChat-v0", small_cases)
    envs.reset(seed=0)
    envs.tool_schemas[0]["function"]["name"] = "other"
    envs.system_messages[0]["content"].clear()
    envs.messages(0).clear()
    envs.images(0)[0][:] = 0
    assert envs.tool_schemas[0]["function"]["name"] != "other"
    assert envs.system_messages[0]["content"] and envs.messages(0)
    assert envs.images(0)[0].any()


def test_environments_with_their_spaces_can_be_pickled_and_set(small_cases):
    env = make_one("MedSeg-v0", small_cases)
    space = env.observation_space
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    env.observation_space = spaces.Dict({"image": spaces.Box(0, 1, (2,))})
    assert list(env.observation_space) == ["image"]
