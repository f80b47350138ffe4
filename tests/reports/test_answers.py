"""Texts of chat models as actions of `MedSegChat-v0` with its default options."""

import json

import gymnasium as gym
import numpy as np
import pytest
from report_rows import assert_says, rows_of

from medseg_gym.cases import Case
from medseg_gym.prompts import encode_tool_call


@pytest.fixture(scope="module")
def env():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:20, 8:20] = 200
    case = Case("square", image, image[:, :, 0] > 0, "square", synthetic=True)
    env = gym.make(
        "MedSegChat-v0", cases=[case], split=None, backbone="ellipse", image_size=32
    ).unwrapped
    yield env
    env.close()


@pytest.mark.parametrize("row", rows_of("answer"))
def test_it_is_read_as_what_it_means(row, env):
    env.reset(seed=0)
    info = env.step(row["text"])[-1]
    prompt = env.episode.steps[-1].prompt
    call = encode_tool_call(prompt) if prompt is not None else None
    inner = call and call.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert (inner and json.loads(inner)) == row["call"], info["error"]
    assert_says(info["error"], row)
