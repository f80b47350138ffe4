"""Every wrapper that gymnasium exports, tried, and the page that says which of them work."""

from __future__ import annotations

import math
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box
from packaging.version import Version

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.prompts import AddBox, encode_tool_call
from medseg_gym.prompts.volumes import SlicePrompt, encode_volume_call

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "gymnasium_wrappers.md"
ROW = re.compile(r"^\| `(\w+)` \| (works|no) \| ?(works|no|) \| ?(.*) \|$", re.MULTILINE)
IDS = sorted(name for name in gym.registry if name.startswith("MedSeg"))
HOMES = {"single": gym.wrappers, "vector": gym.wrappers.vector}
BOX = AddBox(0.2, 0.2, 0.8, 0.8)


def unchanged(value):
    return value


def array_conversion():
    compat = pytest.importorskip("array_api_compat.torch")
    return {"env_xp": np, "target_xp": compat}


# What a wrapper is called with, where it takes more than the environment.
ARGUMENTS = {
    "ArrayConversion": array_conversion,
    "ClipReward": {"min_reward": 0.0, "max_reward": 1.0},
    "DelayObservation": {"delay": 1},
    "DiscretizeAction": {"bins": 4},
    "DiscretizeObservation": {"bins": 4},
    "DtypeObservation": {"dtype": np.float32},
    "FilterObservation": {"filter_keys": ["image"]},
    "FrameStackObservation": {"stack_size": 2},
    "AddWhiteNoise": {"probability_of_noise_per_pixel": 0.1},
    "MaxAndSkipObservation": {"skip": 2},
    "ObstructView": {"obstructed_pixels_ratio": 0.2, "obstruction_width": 3},
    "RecordVideo": {"episode_trigger": lambda number: True},
    "RepeatAction": {"num_repeats": 2},
    "RescaleAction": {"min_action": -1.0, "max_action": 1.0},
    "RescaleObservation": {"min_obs": 0.0, "max_obs": 1.0},
    "ResizeObservation": {"shape": (16, 16)},
    "StickyAction": {"repeat_action_probability": 0.5},
    "TimeLimit": {"max_episode_steps": 2},
    "TransformAction": {"func": unchanged, "action_space": None},
    "TransformObservation": {"func": unchanged, "observation_space": None},
    "TransformReward": {"func": unchanged},
    "VectorizeTransformAction": {
        "wrapper": gym.wrappers.TransformAction, "func": unchanged, "action_space": None,
    },
    "VectorizeTransformObservation": {
        "wrapper": gym.wrappers.TransformObservation, "func": unchanged,
        "observation_space": None,
    },
    "VectorizeTransformReward": {"wrapper": gym.wrappers.TransformReward, "func": unchanged},
}  # fmt: skip
ACTS_ON = {"TransformAction": "action_space", "TransformObservation": "observation_space"}
TO_TENSORS = ("ArrayConversion", "JaxToTorch", "NumpyToTorch")
# Their space stays that of what they are given.
OLD_SPACE = [*((home, name) for home in HOMES for name in TO_TENSORS)]
OLD_SPACE += [("vector", "NormalizeObservation")]


def rows() -> dict[tuple[str, str], tuple[str, str, str]]:
    """Cells of the page's rows by home and wrapper."""
    single, vector = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    return {
        (home, name): (as_it_is, image_alone, why)
        for home, text in (("single", single), ("vector", vector))
        for name, as_it_is, image_alone, why in ROW.findall(text)
    }


ROWS = rows()


def exported() -> list[tuple[str, str]]:
    """Home and name of every wrapper of the installed gymnasium."""
    return [
        (home, name)
        for home, module in HOMES.items()
        for name in module.__all__
        if name != "vector"  # the module of the other home
    ]


def make(home: str, env_id: str, name: str):
    options = {"backbone": "ellipse", "image_size": 32, "max_steps": 3, "render_mode": "rgb_array"}
    if name == "TimeAwareObservation":
        options["max_episode_steps"] = 9
    return gym.make(env_id, **options) if home == "single" else gym.make_vec(env_id, 2, **options)


def image_alone(home: str, env):
    """The environment, which shows its image and nothing else."""

    def take(seen):
        return seen["image"]

    spaces = {"observation_space": env.observation_space["image"]}
    if home == "vector":
        spaces["single_observation_space"] = env.single_observation_space["image"]
    return HOMES[home].TransformObservation(env, take, **spaces)


def action_of(home: str, env_id: str, env):
    if "Chat" not in env_id:
        return env.action_space.sample()
    text = encode_volume_call(SlicePrompt(1, BOX)) if "Volume" in env_id else encode_tool_call(BOX)
    return [text, text] if home == "vector" else text


def play(home: str, env_id: str, name: str, env) -> None:
    """Step beyond the end of an episode.

    Raises:
        Exception: Whatever the wrapper raises, or an observation outside of the space.
    """
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, reward, terminated, truncated, _ = env.step(action_of(home, env_id, env))
        rewards = [reward] if home == "single" else reward
        if not all(math.isfinite(value) for value in rewards):
            raise AssertionError(f"a reward of {reward}")
        ended = home == "single" and (terminated or truncated)
        if (home, name) not in OLD_SPACE and not env.observation_space.contains(observation):
            raise AssertionError("an observation outside of the space")
        if ended and name != "Autoreset":
            env.reset()
    if name in TO_TENSORS:
        assert type(observation["image"]).__module__ == "torch"
    elif home == "vector" and isinstance(env.single_observation_space, Box):
        assert len(observation) == 2


def outcome(home: str, env_id: str, name: str, folder: Path, alone: bool) -> tuple[str, str]:
    """Try a wrapper; skip where a package that it wants is missing.

    Returns:
        "works" or "no", and the error behind a "no".
    """
    arguments = ARGUMENTS.get(name, {})
    arguments = dict(arguments() if callable(arguments) else arguments)
    env = make(home, env_id, name)
    if name == "RecordVideo":
        arguments["video_folder"] = str(folder / "videos")
    if name == "ReshapeObservation":
        space = env.observation_space if home == "single" else env.single_observation_space
        arguments["shape"] = (math.prod(space["image"].shape),)
    try:
        wrapper = getattr(HOMES[home], name)
        if home == "vector" and name in ("TransformAction", "TransformObservation"):
            del arguments[ACTS_ON[name]]  # the spaces stay, and have other names
        env = image_alone(home, env) if alone else env
        env = wrapper(env, **arguments)
        play(home, env_id, name, env)
    except (DependencyNotInstalled, ModuleNotFoundError) as error:
        pytest.skip(f"{name}: {error}")
    except Exception as error:
        return "no", f"{type(error).__name__}: {error}"
    finally:
        env.close()
    return "works", ""


@pytest.mark.filterwarnings(
    "ignore:.*Casting input x to numpy array",  # spaces of numpy arrays look at tensors
    "ignore::DeprecationWarning",  # of moviepy and pygame
    "ignore::ResourceWarning",
    "ignore:.*pkg_resources",
)
@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(("home", "name"), exported(), ids=lambda value: value)
def test_the_page_says_whether_a_wrapper_works(home, name, env_id, tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # pygame's window is drawn nowhere
    if (home, name) not in ROWS:
        pytest.fail(f"{PAGE.name} has no row for gymnasium's {home} wrapper {name}")
    as_it_is, alone, _ = ROWS[home, name]
    seen, error = outcome(home, env_id, name, tmp_path, alone=False)
    assert seen == as_it_is, error
    if alone:
        seen, error = outcome(home, env_id, name, tmp_path, alone=True)
        assert seen == alone, error


def test_rows_are_of_wrappers_that_exist():
    here = Version(gym.__version__)
    for key, (as_it_is, alone, why) in ROWS.items():
        since = re.search(r"gymnasium ([\d.]+) and newer", why)
        assert key in exported() or (since and Version(since[1]) > here), key
        assert bool(alone) == (as_it_is == "no"), key
        assert why or as_it_is == "works", key
