"""Dialects of tool calls: whatever a model writes a call in is read back, and nothing cut is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    AddBox,
    AddPoint,
    Clear,
    Coordinates,
    Stop,
    Undo,
    encode_tool_call,
    read_answer,
)
from tests.prompts.renderings import DIALECTS, THOUGHTS, call_of, hermes, hermes_python, pythonic

CELLS = st.integers(0, 999)
ON_GRID = CELLS.map(lambda v: (v + 0.5) / 1000)
PROMPTS = st.one_of(
    st.builds(AddBox, ON_GRID, ON_GRID, ON_GRID, ON_GRID),
    st.builds(AddPoint, ON_GRID, ON_GRID, st.booleans()),
    st.sampled_from([Undo(), Clear(), Stop()]),
)
BOX = AddBox(0.1005, 0.2005, 0.3005, 0.4005)
CLICK = AddPoint(0.5005, 0.2505, False)
EXAMPLES = [BOX, CLICK, AddPoint(0.5005, 0.2505), Undo(), Clear(), Stop()]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_every_dialect_is_read(dialect):
    for prompt in EXAMPLES:
        text = dialect(*call_of(prompt))
        answer = read_answer(text)
        assert answer.prompt == prompt, (text, answer.error)
        assert not any("ignored" in repair or "unreadable" in repair for repair in answer.repairs)


@given(
    PROMPTS, st.sampled_from(DIALECTS), st.sampled_from(["", "The box.\n", "\n\n", "1. Draw:\n"])
)
def test_any_call_in_any_dialect_is_read_back(prompt, dialect, before):
    text = dialect(*call_of(prompt))
    for whole in (text, text + "\n", f"{before}{text}"):
        answer = read_answer(whole)
        assert answer.prompt == prompt, (whole, answer.error)


@given(PROMPTS, st.sampled_from(DIALECTS), st.sampled_from(["fraction", "pixel"]), st.data())
def test_other_coordinates_are_read_back_in_any_dialect(prompt, dialect, kind, data):
    coordinates = Coordinates(kind, data.draw(st.integers(8, 2000)) if kind == "pixel" else 0)
    written = encode_tool_call(prompt, coordinates)
    expected = read_answer(written, coordinates=coordinates).prompt
    call = json.loads(written[11:-12])
    answer = read_answer(dialect(call["name"], call["arguments"]), coordinates=coordinates)
    assert expected is not None and answer.prompt == expected, (written, answer.error)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_a_call_cut_anywhere_means_the_same_or_nothing(dialect):
    for prompt in (BOX, CLICK, Stop()):
        text = dialect(*call_of(prompt))
        needed = {BOX: "400", CLICK: "250", Stop(): "stop_action"}[prompt]
        first = text.rfind(needed) + len(needed)
        for length in range(len(text)):
            answer = read_answer(text[:length])
            assert answer.prompt in (None, prompt), text[:length]
            if length < first:
                assert answer.prompt is None, text[:length]


@pytest.mark.parametrize("thought", THOUGHTS)
def test_what_is_thought_is_never_done(thought):
    for dialect in DIALECTS:
        considered, meant = dialect(*call_of(Stop())), dialect(*call_of(BOX))
        if "THINKING" in considered or "<|end|>" in considered:  # has a thought of its own
            continue
        whole = thought % f"Perhaps {considered}\n? No." + meant
        assert read_answer(whole).prompt == BOX, whole
        assert read_answer(thought % considered).prompt is None
        assert "thinking is not allowed" in read_answer(whole, thinking="refuse").error
        opened = (thought % "\0").partition("\0")[0]
        if opened:
            answer = read_answer(f"{opened}Perhaps {considered}")
            assert answer.prompt is None and "the thought was not closed" in answer.error


def test_thoughts_within_thoughts_and_behind_the_call():
    stop, box = hermes(*call_of(Stop())), hermes(*call_of(BOX))
    for text in (
        f"{box}<think>{stop}</think>",
        f"{box}<think>{stop}",
        f"<think>a</think><reasoning>{stop}</reasoning>{box}",
        f"<think>a <think>b</think> {stop} </think>{box}",
        f"<think>a <reasoning>{stop}</think>{box}",
        f"<think>a</think>{box}<|end|>",
    ):
        assert read_answer(text).prompt == BOX, text
    assert read_answer(f"<reasoning>a</think>{box}").prompt is None  # not closed by another's mark


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_of_two_calls_the_first_counts_and_the_other_is_told(dialect):
    first, second = dialect(*call_of(BOX)), dialect(*call_of(Stop()))
    answer = read_answer(f"{first}\n{second}")
    assert answer.prompt == BOX and "1 other call ignored" in answer.repairs
    again = read_answer(f"{first}\n{first}")
    assert again.prompt == BOX and not any("ignored" in repair for repair in again.repairs)


@pytest.mark.parametrize(
    "text",
    [
        "I could call stop_action() here, but the mask leaks.",
        "stop_action() would be too early.",
        "You would write:\nstop_action()\nbut the mask leaks.",
        "```python\nstop_action()\n```\nis what I would say if the mask were good.",
        "The tools are add_bbox, add_point and stop_action.",
        "stop_action",
        "[stop_action()",
        "stop_action(",
        "<function=stop_action>",
        "<tool_call>stop_action",
        "<tool_call><function=stop_action>",
        '{"name": "stop_action"',
        "Action: stop_action",
        "[TOOL_CALLS]stop_action",
        '{"point_2d": [500, 250]',
        '[{"point_2d": [500, 250], "label": "squ',
        # two things at once, or one that is no call
        '{"bbox_2d": [1, 2, 3, 4], "point_2d": [500, 250]}',
        '{"box_2d": [1, 2, 3, 4], "label": "square"}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}}',
        '{"name": "stop_action", "name": "undo_action"}',
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4]}, "parameters": {"x": 1}}',
        '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}',
        '{"name": "add_point", "arguments" {"point_2d": [1, 2]}}',
        '{"name": "add_point", "arguments": {"point_2d": [1, 2]}}',
        'add_point{"point_2d": [1, 2]}',
        "[zoom(bbox_2d=[1, 2, 3, 4])]",
        "add_bbox(1, 2, 3, 4, 5)",
        "stop_action(1)",
        "First:\nadd_bbox(bbox_2d=[1, 2, 3, 4])\nThen, if it fits:\nstop_action()",
    ],
)
def test_what_is_no_whole_call_or_two_is_not_done(text):
    answer = read_answer(text)
    assert answer.prompt is None and answer.error


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ('{"bbox_2d": [100, 200, 300, 400]}', BOX),
        ('[{"bbox_2d": [100, 200, 300, 400], "label": "square"}]', BOX),
        ('```json\n{"bbox_2d": [[100, 200, 300, 400]], "label": "a"}\n```', BOX),
        ('<answer>{"bbox_2d": [100, 200, 300, 400]}</answer>', BOX),
        ('<tool_call>{"bbox_2d": [100, 200, 300, 400]}</tool_call>', BOX),
        ("<answer>\nadd_bbox(bbox_2d=[100, 200, 300, 400])\n</answer>", BOX),
        ('{"point_2d": [500, 250], "label": "square"}', EXAMPLES[2]),
        ('{"point_2d": [500, 250], "label": 0}', CLICK),
        ('{"point_2d": [500, 250], "label": "background"}', CLICK),
        ('{"point_2d": [500, 250], "point_type": "negative"}', CLICK),
        ('{"name": "add_bbox", "arguments": {"x1": 100, "y1": 200, "x2": 300, "y2": 400}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": "[100, 200, 300, 400]"}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": "100, 200, 300, 400"}}', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": [100, 200, 300, 400]}}</tool_call>', BOX),
        ('{"name": "add_bbox", "arguments": {"bbox_2d": [[[100, 200], [300, 400]]]}}', BOX),
        ('{"name": "functions.add_bbox", "arguments": {"bbox_2d": [100, 200, 300, 400]}}', BOX),
        ("<tool_call>add_bbox(bbox_2d=[100, 200, 300, 400])</tool_call>", BOX),
        ("The square is here.\n\n[add_bbox(bbox_2d=[100, 200, 300, 400])]", BOX),
        ("<|python_tag|>add_bbox.call(bbox_2d=[100, 200, 300, 400])", BOX),
        ("[TOOL_CALLS]functions.stop_action[ARGS]{}", Stop()),
        ("<|tool_call_begin|>functions.stop_action:3<|tool_call_argument_begin|>{}", Stop()),
        ("stop_action()", Stop()),
        ("  stop_action()  \n", Stop()),
        ("```\nstop_action()\n```", Stop()),
        ("[stop_action()]<|eot_id|>", Stop()),
        ('{"function": {"name": "stop_action", "arguments": "{}"}}', Stop()),
        ('{"function": "stop_action", "arguments": {}}', Stop()),
        ('{"tool": "stop_action"}', Stop()),
    ],
)  # fmt: skip
def test_siblings_of_the_dialects(text, prompt):
    answer = read_answer(text)
    assert answer.prompt == prompt, answer.error


@pytest.mark.parametrize(
    ("word", "positive"),
    [
        *[(word, True) for word in ("positive", "Foreground", "fg", "pos", 1, 1.0, "1", " 1 ")],
        *[(word, False) for word in ("negative", "BACKGROUND", "bg", "neg", 0, "0")],
        *[(word, None) for word in (2, -1, "2", "", "square", None, True, False, [1], {}, 0.5)],
    ],
)
def test_types_of_points_by_their_other_names(word, positive):
    for dialect in (hermes, hermes_python, pythonic):
        answer = read_answer(dialect("add_point", {"point_2d": [500, 250], "point_type": word}))
        expected = None if positive is None else AddPoint(0.5005, 0.2505, positive)
        assert answer.prompt == expected and bool(answer.error) == (positive is None)
