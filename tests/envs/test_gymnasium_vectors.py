"""Gymnasium's own vectors and vector wrappers over the environments."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import vector as wrappers

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case
from medseg_gym.envs.rendering import FRAME_SHAPE, draw_episode

IDS = ["MedSeg-v0", "MedSegChat-v0"]
BOX = '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [200, 200, 800, 800]}}</tool_call>'
SHAPES = [(48, 64), (64, 48), (7, 301), (301, 7), (1, 1), (33, 35), (512, 511)]


def make_case(height, width):
    image = np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[: max(1, height // 2), : max(1, width // 2)] = True
    return Case(f"{height}x{width}", image, mask, "Läsion · Größe", synthetic=True)


CASES = [make_case(*shape) for shape in SHAPES]


def actions(env_id, count):
    return [BOX] * count if "Chat" in env_id else np.tile([0, 200, 200, 800, 800], (count, 1))


def make_vec(env_id, count=2, **options):
    options = {"backbone": "ellipse", "image_size": 32, "max_steps": 2, **options}
    return gym.make_vec(
        env_id, num_envs=count, cases=CASES, split=None, render_mode="rgb_array", **options
    )


# frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_frames_have_one_even_shape_whatever_the_images(env_id):
    envs = make_vec(env_id, len(CASES))
    envs.reset(options={"case": [case.key for case in CASES]})
    for _ in range(4):
        frames = envs.render()
        assert {frame.shape for frame in frames} == {FRAME_SHAPE}
        assert all(frame.dtype == np.uint8 and frame.flags.writeable for frame in frames)
        envs.step(actions(env_id, len(CASES)))
    assert FRAME_SHAPE[0] % 2 == FRAME_SHAPE[1] % 2 == 0
    for frame, episode in zip(envs.render(), envs.unwrapped.episodes, strict=True):
        drawn = draw_episode(episode)  # whole, and nothing of it is scaled or cut
        top, left = (FRAME_SHAPE[0] - drawn.shape[0]) // 2, (FRAME_SHAPE[1] - drawn.shape[1]) // 2
        part = frame[top : top + drawn.shape[0], left : left + drawn.shape[1]]
        np.testing.assert_array_equal(part, drawn)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
@pytest.mark.filterwarnings("ignore")  # moviepy's
def test_record_video_writes_its_file(env_id, mode, tmp_path):
    pytest.importorskip("moviepy")
    envs = make_vec(env_id, 3, autoreset_mode=mode)
    recorded = wrappers.RecordVideo(envs, str(tmp_path), step_trigger=lambda step: step == 1)
    recorded.reset(seed=0)
    for _ in range(5):
        recorded.step(actions(env_id, 3))
    recorded.close()
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 1000


@pytest.mark.filterwarnings("ignore")
def test_record_video_of_a_single_environment_spans_episodes(tmp_path):
    pytest.importorskip("moviepy")
    env = gym.make(
        "MedSeg-v0", cases=CASES, split=None, backbone="ellipse", image_size=32,
        max_steps=1, render_mode="rgb_array",
    )  # fmt: skip
    env = gym.wrappers.RecordVideo(
        env, str(tmp_path), step_trigger=lambda step: step == 0, video_length=8
    )
    for case in CASES:
        env.reset(options={"case": case.key})
        env.step(np.array([0, 200, 200, 800, 800]))
    env.close()
    assert len(list(tmp_path.glob("*.mp4"))) == 1


# processes ---------------------------------------------------------------------------------


def assert_like_native(env_id, envs, steps=4):
    native = make_vec(env_id, autoreset_mode="next_step")
    pairs = [(envs.reset(seed=3), native.reset(seed=3))]
    for _ in range(steps):
        pairs.append((envs.step(actions(env_id, 2)), native.step(actions(env_id, 2))))
    for result, expected in pairs:
        assert result[-1]["case"].tolist() == expected[-1]["case"].tolist()
        for key, value in expected[0].items():
            if key == "text":
                assert type(result[0][key]) is tuple and result[0][key] == value
            else:
                np.testing.assert_array_equal(result[0][key], value)
        for ours, theirs in zip(result[1:-1], expected[1:-1], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
    envs.close()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    "options",
    [{}, {"shared_memory": False}, {"copy": False}],
    ids=["default", "no shared memory", "no copies"],
)
def test_async_vectors_are_like_the_native_batch(env_id, options):
    envs = make_vec(env_id, vectorization_mode="async", vector_kwargs=options)
    if "copy" in options:  # observations that change with the next step
        first = envs.reset(seed=3)[0]
        assert len(first["image"]) == 2
        if "text" in first:
            before = tuple(first["text"])
            envs.step(actions(env_id, 2))
            assert tuple(first["text"]) != before == before[:2] and first["text"][:1] != before[:1]
        envs.close()
        return
    assert_like_native(env_id, envs)


@pytest.mark.parametrize("env_id", IDS)
def test_sync_vectors_are_like_the_native_batch(env_id):
    assert_like_native(env_id, make_vec(env_id, vectorization_mode="sync"))


def test_a_text_that_does_not_fit_between_processes_raises():
    envs = gym.make_vec(
        "MedSegChat-v0",
        num_envs=1,
        cases=[Case("a", CASES[0].image, CASES[0].mask, "x" * 70_000)],
        split=None,
        backbone="ellipse",
        image_size=32,
        vectorization_mode="async",
    )
    with pytest.warns(UserWarning), pytest.raises(Exception, match="shared_memory"):
        envs.reset()
    envs.close(terminate=True)


PROGRAM = """
import gymnasium as gym, medseg_gym, torch
if __name__ == "__main__":
    torch.set_num_threads(4)
    options = {"backbone": "pocket", "image_size": 32, "cases": "phantoms:fundus"}
    env = gym.make("MedSeg-v0", **options)  # the pool of threads is in use before the fork
    env.reset(seed=0)
    env.step(env.action_space.sample())
    envs = gym.make_vec("MedSeg-v0", num_envs=2, vectorization_mode="async", **options)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.close()
    assert torch.get_num_threads() == 4
    print("stepped")
"""


def test_a_learned_backbone_does_not_hang_in_forked_processes():
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert done.stdout.strip() == "stepped", done.stderr[-2000:]
