"""MedSegVolumeChat-v0: the checks of environments, what a turn shows, what an answer does."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import medseg_gym  # noqa: F401
from medseg_gym.annotators.volumes import KeySliceClicks
from medseg_gym.cases import VolumeCase
from medseg_gym.envs.views.chat_texts import ChatTexts
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import (
    Look,
    Propagate,
    SlicePrompt,
    VolumeCodec,
    encode_volume_call,
    read_volume_answer,
)
from medseg_gym.testing.check_vector_env import check_vector_env

SMALL = {"backbone": "ellipse", "image_size": 36, "overview_size": 16, "max_steps": 4}
BOX = AddBox(0.2505, 0.2505, 0.5005, 0.7505)
PROMPTS = [
    SlicePrompt(3, BOX),
    SlicePrompt(0, AddPoint(0.1005, 0.9005, positive=True)),
    SlicePrompt(11, AddPoint(0.1005, 0.9005, positive=False)),
    Propagate(),
    Look(5),
    Undo(),
    Clear(),
    Stop(),
]


def volumes() -> list[VolumeCase]:
    made = []
    for number, shape in enumerate([(7, 24, 30), (5, 32, 32), (12, 20, 16)]):
        mask = np.zeros(shape, bool)
        mask[2:4, 6:14, 5:12] = True
        image = np.random.default_rng(number).integers(0, 200, shape).astype(np.uint8)
        made.append(VolumeCase(f"v{number}", image, mask, f"organ {number % 2}"))
    return made


@pytest.fixture
def env():
    made = gym.make("MedSegVolumeChat-v0", cases=volumes(), **SMALL).unwrapped
    made.reset(options={"case": "v0"})
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_the_laws_of_vector_envs_hold(mode):
    envs = gym.make_vec(
        "MedSegVolumeChat-v0", num_envs=3, cases=volumes(), autoreset_mode=mode, **SMALL
    )
    check_vector_env(envs)
    envs.close()


# what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.tool)
def test_a_call_is_read_as_it_is_written(prompt):
    answer = read_volume_answer(f"<think>hm</think>{encode_volume_call(prompt)}")
    assert answer.prompt == prompt and answer.error == "" and answer.repairs == ()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ('{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4]}}', "slice of add_bbox must"),
        ('{"name": "look_action", "arguments": {"slice": -1}}', "slice of look_action must"),
        ('{"name": "look_action", "arguments": {"slice": true}}', "got True"),
        ('{"name": "look_action", "arguments": {"slice": 1.5}}', "got 1.5"),
        ('{"name": "zoom", "arguments": {}}', "use one of add_bbox, add_point, propagate_action"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(call, told):
    answer = read_volume_answer(f"<tool_call>{call}</tool_call>")
    assert answer.prompt is None and told in answer.error


def test_near_misses_of_a_slice_and_a_name_are_forgiven():
    call = '<tool_call>{"name": "%s", "arguments": {"slice": %s}}</tool_call>'
    assert read_volume_answer(call % ("look", '"4"')).prompt == Look(4)
    assert read_volume_answer(call % ("functions.look_action", "4.0")).prompt == Look(4)
    assert read_volume_answer(call % ("propagate", "null")).prompt == Propagate()
    only = read_volume_answer(call % ("look_action", "4"), tools=("box", "stop"))
    assert "use one of add_bbox, stop_action" in only.error


def test_an_answer_without_a_call_or_beyond_the_volume_costs_a_step(env):
    for answer, why in (
        ("Let me see.", "no <tool_call>"),
        (encode_volume_call(Look(7)), "the volume has 7 slices, there is no 7"),
    ):
        observation, reward, *_, info = env.step(answer)
        assert not info["valid"] and why in info["error"] and reward == pytest.approx(-0.01)
        assert why in observation["text"] and "This is slice 3" in observation["text"]


# what is shown --------------------------------------------------------------------------------


def test_turns_show_the_slice_in_view_and_the_overview(env):
    first, _ = env.reset(options={"case": "v0"})
    assert first["text"] == (
        "Segment: organ 0. The scan has slices 0 to 6. This is slice 3. You have at most 4 calls."
    )
    assert (first["overview"][8, 16:] == (255, 255, 0)).all()  # slice 3 of 7, of 16 rows
    looked = env.step(encode_volume_call(Look(6)))[0]
    assert "slice 6 of 0 to 6" in looked["text"] and (looked["image"] != first["image"]).any()
    assert (looked["overview"][14, 16:] == (255, 255, 0)).all()
    masked, *_, info = env.step(encode_volume_call(SlicePrompt(3, BOX)))
    assert info["tool"] == "box" and "is on 1 of them. 2 calls left" in masked["text"]
    green = masked["image"].astype(int) - first["image"]
    assert green[18, 13, 1] > 0 and (green[0, 0] == 0).all()
    assert (masked["overview"][8, 5] != first["overview"][8, 5]).any()
    messages, images = env.messages(), env.images()
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert [part["type"] for part in messages[1]["content"]] == ["image", "image", "text"]
    for turn, told in enumerate((first, looked, masked)):
        np.testing.assert_array_equal(images[2 * turn], told["image"])
        np.testing.assert_array_equal(images[2 * turn + 1], told["overview"])
        assert messages[1 + 2 * turn]["content"][-1]["text"] == told["text"]
    assert env.step(encode_volume_call(Stop()))[0]["text"] == env.view.texts.over
    assert len(env.images()) == 6 and env.messages()[-1]["role"] == "assistant"


def test_prompt_and_schemas_tell_of_the_calls_in_use():
    env = gym.make(
        "MedSegVolumeChat-v0", cases=volumes(), tools=["box", "propagate", "stop"], **SMALL
    ).unwrapped
    names = [one["function"]["name"] for one in env.tool_schemas]
    assert names == ["add_bbox", "propagate_action", "stop_action"]
    assert env.tool_schemas[0]["function"]["parameters"]["required"] == ["slice", "bbox_2d"]
    env.reset(seed=0)
    system = env.messages()[0]["content"][0]["text"]
    assert "propagate_action" in system and "look_action" not in system
    with pytest.raises(MedSegError, match="take no argument 'slices': tool calls name slices"):
        gym.make("MedSegVolumeChat-v0", slices=7)
    with pytest.raises(MedSegError, match="a VolumeChatTexts"):
        gym.make("MedSegVolumeChat-v0", cases=volumes(), texts=ChatTexts())


def test_an_oracle_of_volumes_plays_it_as_it_plays_arrays(env):
    case = env.source[0]
    arrays = gym.make("MedSegVolume-v0", cases=[case], slices=7, backbone="ellipse", max_steps=4)
    arrays, codec = arrays.unwrapped, VolumeCodec(slices=7)
    expert = KeySliceClicks(codec)
    arrays.reset(options={"case": "v0"})
    ended = False
    while not ended:
        action = expert.act({}, arrays.episodes)[0]
        (prompt,) = codec.decode(np.asarray(action)[None], [7])
        ours, theirs = env.step(encode_volume_call(prompt)), arrays.step(action)
        assert ours[1:4] == theirs[1:4] and ours[4]["dice"] == theirs[4]["dice"]
        ended = ours[2]
    assert ours[4]["dice"] > 0
