"""The chat environment: the same episodes as the array view, in words and images."""

import json
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import medseg_gym  # noqa: F401
from medseg_gym.envs.views.chat_texts import ChatTexts
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo, encode_tool_call
from medseg_gym.testing.check_vector_env import check_vector_env

MODES = ["next_step", "same_step", "disabled"]
BOX = encode_tool_call(AddBox(0.2, 0.2, 0.7, 0.7))
CLICK = encode_tool_call(AddPoint(0.5, 0.4))
STOP = encode_tool_call(Stop())


def make(**options):
    return gym.make("MedSegChat-v0", backbone="ellipse", **{"image_size": 32, **options}).unwrapped


def make_vec(num_envs=3, **options):
    options = {"backbone": "ellipse", "image_size": 32, **options}
    return gym.make_vec("MedSegChat-v0", num_envs=num_envs, **options)


@pytest.mark.parametrize("mode", MODES)
def test_the_laws_of_vector_envs_hold_exactly(mode, small_cases):
    envs = make_vec(3, cases=small_cases, autoreset_mode=mode, max_steps=3)
    report = check_vector_env(envs)
    alone = set() if mode == "disabled" else {"reset mask", "reset options"}
    assert set(report.skipped) == alone | {"time limit"}
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_laws_hold_with_a_time_limit(mode, small_cases):
    envs = make_vec(2, cases=small_cases, autoreset_mode=mode, max_steps=6, max_episode_steps=3)
    assert "time limit" in check_vector_env(envs).passed
    envs.close()


def test_gymnasium_takes_it_for_an_environment(small_cases):
    check_env(make(cases=small_cases, max_steps=3), skip_render_check=True)
    env = gym.make("MedSegChat-v0", backbone="ellipse", cases=small_cases)
    env.reset(seed=1)
    env.action_space.seed(1)
    terminated = False
    while not terminated:  # with gymnasium's passive checker around it
        observation, _, terminated, *_ = env.step(env.action_space.sample())
    assert observation["image"].shape == (512, 512, 3)
    with pytest.raises(EpisodeError, match="is over"):
        env.step(STOP)


def test_it_works_with_no_argument():
    envs = gym.make_vec("MedSegChat-v0", num_envs=2).unwrapped
    assert envs.backbone.name == "pocket" and envs.view.side == 512
    envs.close()


def test_both_views_play_the_same_episode(small_cases):
    prompts = [
        AddBox(0.2, 0.3, 0.8, 0.9),
        AddPoint(0.5, 0.5, False),
        Undo(),
        Undo(),
        Undo(),
        Clear(),
    ]
    chat = make(cases=small_cases, max_steps=8)
    array = gym.make("MedSeg-v0", backbone="ellipse", cases=small_cases, max_steps=8).unwrapped
    infos = [env.reset(seed=3)[1] for env in (chat, array)]
    for prompt in [*prompts, Stop()]:
        infos[0].pop("repairs")
        assert infos[0] == infos[1]
        replies = chat.step(encode_tool_call(prompt))
        done = array.step(array.codec.encode(prompt))
        infos = [replies[4], done[4]]
        assert replies[1:4] == done[1:4]
    np.testing.assert_array_equal(chat.episode.state.mask, array.episode.state.mask)


def test_the_conversation_and_its_images(small_cases):
    env = make(cases=small_cases)
    observation, _ = env.reset(options={"case": "wide"})
    assert observation["text"] == "Segment: blob. You have at most 5 calls."
    plain = np.asarray(
        Image.fromarray(small_cases[0].image).resize((32, 32), Image.Resampling.BILINEAR)
    )
    np.testing.assert_array_equal(observation["image"], plain)
    seen = [observation]
    for answer in (f"The blob.\n{BOX}", "what?", CLICK):
        observation, *_ = env.step(answer)
        seen.append(observation)
        mask = env.episode.state.mask.numpy()
        at = [((np.arange(32) + 0.5) * n / 32).astype(int) for n in mask.shape]
        covered = mask[np.ix_(*at)]
        assert covered.any()
        half = (plain * 0.5 + np.array([40, 220, 90]) * 0.5).astype(np.uint8)
        np.testing.assert_array_equal(
            observation["image"], np.where(covered[..., None], half, plain)
        )
    assert seen[1]["text"] == "This is the mask so far. 4 calls left."
    assert seen[2]["text"].startswith("That call changed nothing: no <tool_call>")
    assert seen[2]["text"].endswith("3 calls left.")
    messages, images = env.messages(), env.images()
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * 3, "user"]
    users = [m["content"] for m in messages if m["role"] == "user"]
    assert users == [[{"type": "image"}, {"type": "text", "text": o["text"]}] for o in seen]
    replies = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    assert replies == [f"The blob.\n{BOX}", "what?", CLICK]
    for image, one in zip(images, seen, strict=True):
        np.testing.assert_array_equal(image, one["image"])
    images[0][:] = 0  # a copy: the environment's own is left alone
    observation, *_, terminated, _, info = env.step(STOP)
    assert terminated and info["stopped"] and observation["text"] == "The episode is over."
    assert [m["role"] for m in env.messages()] == ["system", *["user", "assistant"] * 4]
    assert len(env.images()) == 4
    np.testing.assert_array_equal(env.images()[0], plain)


def test_the_model_is_told_why_an_answer_was_refused_and_pays_for_it(small_cases):
    env = make(cases=small_cases, max_steps=2)
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step('<tool_call>{"name": "zoom"}</tool_call>')
    assert "unknown tool 'zoom'; use one of add_bbox" in observation["text"]
    assert info["error"] in observation["text"] and not info["valid"] and info["tool"] == ""
    assert reward == pytest.approx(-0.01) and not terminated
    observation, reward, terminated, _, info = env.step("")
    assert terminated and not info["stopped"] and env.episode.steps_left == 0


def test_what_was_forgiven_stands_in_info(small_cases):
    env = make(cases=small_cases)
    assert env.reset(seed=0)[1]["repairs"] == ""
    *_, info = env.step(
        "```json\n{'name': 'add_bbox', 'arguments': {'bbox_2d': [1, 2, 300, 400]}}\n```"
    )
    assert info["valid"] and info["repairs"] == "no tags, quotes"
    assert env.step(STOP)[4]["repairs"] == ""


def test_the_truth_is_in_no_message(small_cases):
    from dataclasses import replace

    other = [replace(case, mask=~case.mask) for case in small_cases]
    seen = []
    for cases in (small_cases, other):
        env = make(cases=cases)
        env.reset(options={"case": "tall"})
        for answer in (BOX, "nonsense", CLICK):
            env.step(answer)
        seen.append((json.dumps(env.messages()), np.stack(env.images()).tobytes()))
    assert seen[0] == seen[1]


def test_none_sits_a_step_out(small_cases):
    envs = make_vec(3, cases=small_cases, autoreset_mode="disabled").unwrapped
    envs.reset(seed=0)
    observations, rewards, terminations, _, infos = envs.step([BOX, None, STOP])
    assert [len(episode.steps) for episode in envs.episodes] == [1, 0, 1]
    assert rewards[1] == 0 and terminations.tolist() == [False, False, True]
    assert infos["_dice"].tolist() == [True, False, True]
    again, rewards, terminations, _, infos = envs.step([None, None, BOX])
    assert not rewards.any() and terminations.tolist() == [False, False, True] and not infos
    assert again["text"] == observations["text"]
    np.testing.assert_array_equal(again["image"], observations["image"])
    assert envs.messages(1)[-1]["content"][1]["text"] == observations["text"][1]
    assert len(envs.images(0)) == 2
    envs.close()


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([BOX], "sequence of 2 answers"),
        (BOX, "got a str"),
        ([BOX, 7], "slot 1 must be a str or None, got int"),
        ([BOX, b"x"], "slot 1 must be a str or None, got bytes"),
    ],
)
def test_actions_that_are_no_answers_are_the_callers_fault(actions, words, small_cases):
    envs = make_vec(2, cases=small_cases)
    envs.reset(seed=0)
    with pytest.raises(MedSegError, match=words):
        envs.step(actions)
    env = make(cases=small_cases)
    env.reset(seed=0)
    for action in (7, None):
        with pytest.raises(MedSegError, match=r"must be a str|wants an action"):
            env.step(action)


def test_options_of_the_array_view_and_unknown_ones_are_refused(small_cases):
    for options, words in (
        ({"bins": 10}, "'bins': tool calls are on a grid of 1000"),
        ({"targets": ["a"]}, "'targets': the target is told in words"),
        ({"imagesize": 10}, "no argument 'imagesize' .did you mean 'image_size'.*known: "),
        ({"overlay": "dots"}, "overlay must be fill, outline or none"),
        ({"overlay_strength": 2}, "overlay_strength must be in 0..1"),
        ({"texts": "loud"}, "texts must be one of full, terse"),
        ({"texts": {"openin": ""}}, "openin"),
        ({"texts": {"turn": "{dice}"}}, "ChatTexts.turn cannot be filled in"),
        ({"texts": {"turn": "", "over": ""}}, "ChatTexts.turn and ChatTexts.over are both"),
        ({"image_size": 4}, "image_size must be in"),
    ):
        with pytest.raises(MedSegError, match=words):
            make(cases=small_cases, **options)


def test_overlays(small_cases):
    shown = {}
    for overlay in ("fill", "outline", "none"):
        for strength in (0.0, 1.0):
            env = make(cases=small_cases, overlay=overlay, overlay_strength=strength)
            plain = env.reset(options={"case": "sq"})[0]["image"]
            shown[overlay, strength] = env.step(BOX)[0]["image"]
    covered = env.episode.state.mask.numpy()  # 32 x 32, like the image
    green = np.array([40, 220, 90])
    assert (shown["fill", 1.0][covered] == green).all()
    np.testing.assert_array_equal(shown["fill", 1.0][~covered], plain[~covered])
    border = (shown["outline", 1.0] == green).all(axis=2)
    assert border.any() and covered[border].all() and border.sum() < covered.sum()
    for key in (("fill", 0.0), ("outline", 0.0), ("none", 0.0), ("none", 1.0)):
        np.testing.assert_array_equal(shown[key], plain)


def test_words_can_be_replaced(small_cases):
    texts = ChatTexts(system="Tools:\n{calls}", opening="{target}|{modality}|{steps_left}")
    env = make(cases=small_cases, texts=texts, tools=["box", "negative_point", "stop"])
    observation, _ = env.reset(options={"case": "wide"})
    assert observation["text"] == "blob|CT|5"
    system = env.messages()[0]["content"][0]["text"]
    assert system.startswith("Tools:\n<tool_call>") and "undo_action" not in system
    names = [schema["function"]["name"] for schema in env.tool_schemas]
    assert names == ["add_bbox", "add_point", "stop_action"]
    kinds = env.tool_schemas[1]["function"]["parameters"]["properties"]["point_type"]["enum"]
    assert kinds == ["negative"]
    for answer, words in (
        (CLICK, "point_type 'positive' is not allowed"),
        (
            encode_tool_call(Undo()),
            "unknown tool 'undo_action'; use one of add_bbox, add_point, st",
        ),
    ):
        assert words in env.step(answer)[0]["text"]
    terse = make(cases=small_cases, texts="terse")
    observation, _ = terse.reset(options={"case": "wide"})
    assert observation["text"] == "blob, 5 calls."
    assert [m["role"] for m in terse.messages()] == ["user"]
    assert terse.step(BOX)[0]["text"] == "4 left."


def test_thinking_is_an_option(small_cases):
    answer = f"<think>A box: {CLICK}</think>{BOX}"
    env = make(cases=small_cases, thinking="refuse")
    env.reset(seed=0)
    info = env.step(answer)[4]
    assert "thinking is not allowed" in info["error"] and not info["valid"]
    assert "<think>" not in env.messages()[0]["content"][0]["text"]
    env = make(cases=small_cases)  # read past, but not asked for
    env.reset(seed=0)
    assert env.step(answer)[4]["tool"] == "box"
    assert "<think>" not in env.messages()[0]["content"][0]["text"]
    with pytest.raises(MedSegError, match="thinking must be True, False or"):
        make(cases=small_cases, thinking="no")
    env = make(cases=small_cases, thinking=True)
    env.reset(seed=0)
    assert env.step(answer)[4]["tool"] == "box"
    assert "<think>" in env.messages()[0]["content"][0]["text"]
    assert env.messages()[2]["content"][0]["text"] == answer


@pytest.fixture(scope="module")
def shared_env(small_cases):
    return make(cases=small_cases, max_steps=3)


HARD = st.one_of(
    st.text(max_size=200),
    st.builds(
        lambda parts, times: "".join(parts) * times,
        st.lists(
            st.sampled_from(
                [
                    *("<tool_call>", "</tool_call>", "<think>", "</think>", "{", "}", "[", "]"),
                    *(
                        '"',
                        "'",
                        ",",
                        ":",
                        "name",
                        "add_bbox",
                        '{"name": "add_bbox", ',
                        "\\",
                        "\u201c",
                    ),
                    *('"arguments": {"bbox_2d": [1, 2, ', "9" * 500, "1e999", "NaN", "\ud800", " "),
                    *('{"name": "stop_action"}', BOX, "```json\n", "\0", "null", "-", '\\"'),
                ]
            ),
            max_size=12,
        ),
        st.sampled_from([1, 1, 1, 50, 3000]),
    ),
)


@given(answer=HARD)
def test_no_answer_raises_or_freezes(shared_env, answer):
    answer = answer[:100_000]
    shared_env.reset(seed=0)
    for _ in range(3):
        started = time.thread_time()  # not what other programs take meanwhile
        observation, _, terminated, _, info = shared_env.step(answer)
        assert time.thread_time() - started < 2
        assert isinstance(observation["text"], str) and len(observation["text"]) < 600
        assert info["valid"] == (info["error"] == "")
        if terminated:
            break
    taken = len(shared_env.episode.steps)
    assert terminated and (taken == 3 or info["stopped"])
    assert len(shared_env.messages()) == 1 + 2 * taken


@pytest.mark.parametrize(
    ("coordinates", "values", "rule", "span"),
    [
        ("grid1000", [250, 250, 750, 750], "whole numbers from 0 to 999", "0 to 999 of width"),
        ("fraction", [0.2505, 0.2505, 0.7505, 0.7505], "fractions from 0 to 1", "fractions 0 to 1"),
        ("pixel", [8, 8, 24, 24], "which is 32 wide and 32 high", "pixels 0 to 31 of the 32 x 32"),
    ],
)
def test_coordinates_are_told_read_and_written_alike(coordinates, values, rule, span, small_cases):
    env = make(cases=small_cases, coordinates=coordinates)
    env.reset(options={"case": "sq"})
    assert rule in env.messages()[0]["content"][0]["text"]
    schema = env.tool_schemas[0]["function"]["parameters"]["properties"]["bbox_2d"]
    assert span in schema["description"]
    assert schema["items"]["type"] == ("number" if coordinates == "fraction" else "integer")
    call = {"name": "add_bbox", "arguments": {"bbox_2d": values}}
    text = f"<tool_call>{json.dumps(call)}</tool_call>"
    info = env.step(text)[4]
    assert info["valid"] and info["repairs"] == ""
    box = env.episode.steps[0].prompt
    assert box.x1 == pytest.approx(0.25, abs=0.02) and box.x2 == pytest.approx(0.75, abs=0.02)
    view = env.view
    assert view.settings["coordinates"] == coordinates
    view._answers.clear()  # as a recording knows prompts alone
    assert view.answers(env.episode) == [text]
    env.action_space.seed(0)
    for _ in range(20):
        env.reset()
        answer = env.action_space.sample()
        info = env.step(answer)[4]
        assert info["tool"] or "<tool_call>" not in answer
        assert "must hold" not in info["error"]
    with pytest.raises(MedSegError, match="coordinates must be one of"):
        make(cases=small_cases, coordinates="percent")
    env.close()


def test_calls_that_are_left_alone_are_told_in_repairs(small_cases):
    env = make(cases=small_cases)
    env.reset(seed=0)
    info = env.step(BOX + STOP)[4]
    assert info["tool"] == "box" and info["valid"] and info["error"] == ""
    assert info["repairs"] == "1 other call ignored"
    assert env.step(STOP + STOP)[4]["repairs"] == ""  # the same call twice is one
