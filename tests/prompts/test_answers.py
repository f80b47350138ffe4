"""Whole answers of models: what is plain enough is repaired, the rest refused with a reason."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    TOOL_CALL_OF_TOOL,
    TOOLS,
    AddBox,
    AddPoint,
    Clear,
    Stop,
    Undo,
    encode_tool_call,
    read_answer,
)
from medseg_gym.prompts.lenient_json import read_lenient_json


def at(cell: int) -> float:
    return (cell + 0.5) / 1000


def box(*cells: int) -> AddBox:
    return AddBox(*map(at, cells))


def click(x: int, y: int, positive: bool = True) -> AddPoint:
    return AddPoint(at(x), at(y), positive)


BOX = box(100, 200, 300, 400)
GOOD = '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [100, 200, 300, 400]}}</tool_call>'
BODY = GOOD.removeprefix("<tool_call>").removesuffix("</tool_call>")
PROMPTS = [BOX, click(1, 2), click(3, 4, False), Undo(), Clear(), Stop()]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.tool)
def test_a_call_to_the_letter_needs_no_repair(prompt):
    answer = read_answer(f"I think so. {encode_tool_call(prompt)} Done.")
    assert (answer.prompt, answer.error, answer.repairs) == (prompt, "", ())


@pytest.mark.parametrize(
    ("text", "prompt", "repair"),
    [
        # tags
        (GOOD.removesuffix("</tool_call>"), BOX, "no closing tag"),
        (GOOD.removesuffix("}</tool_call>") + "</tool_call>", BOX, "brackets left open"),
        (GOOD.removesuffix("}}</tool_call>") + "</tool_call>", BOX, "brackets left open"),
        (GOOD.removesuffix("]}}</tool_call>") + "</tool_call>", BOX, "brackets left open"),
        (BODY, BOX, "no tags"),
        (f"Here: {BODY} and so on {{}}", BOX, "no tags"),
        (f"```json\n{BODY}\n```", BOX, "no tags"),
        (f"<tool_call>\n```json\n{BODY}\n```\n</tool_call>", BOX, "words before the call"),
        (f"<tool_call>{GOOD}</tool_call>", BOX, ""),
        (f"<tool_call>{BODY} {{}}</tool_call>", BOX, "words after the call"),
        (f"<tool_call>{BODY}}}</tool_call>", BOX, "words after the call"),
        ("<tool_call>stop_action()</tool_call>", Stop(), "a bare name"),
        ("<tool_call> stop_action </tool_call>", Stop(), "a bare name"),
        # JSON
        ('<tool_call>{name": "stop_action", "arguments": {}}</tool_call>', Stop(), "a key without"),
        ("<tool_call>{'name': 'stop_action', 'arguments': {}}</tool_call>", Stop(), "quotes"),
        ("<tool_call>{\u201cname\u201d: \u201cstop_action\u201d}</tool_call>", Stop(), "quotes"),
        (
            "<tool_call>{name: 'stop_action', arguments: None}</tool_call>",
            Stop(),
            "words of Python",
        ),
        (GOOD.replace("400]", "400,],"), BOX, "a comma too many"),
        ('<tool_call>{"name": "stop_action",}', Stop(), "a comma too many"),
        # names and places
        (GOOD.replace("add_bbox", " Add_BBox "), BOX, "capitals or blanks in the name"),
        (GOOD.replace("add_bbox", "box"), BOX, "another name"),
        ('<tool_call>{"name": "stop"}</tool_call>', Stop(), "another name"),
        (
            '<tool_call>{"name": "negative_point", "arguments": {"point_2d": [1, 2]}}</tool_call>',
            click(1, 2, False),
            "another name",
        ),
        (
            '<tool_call>{"name": "add_negative_point", "arguments": {"x": 1, "y": "2"}}',
            click(1, 2, False),
            "an older name",
        ),
        (
            '<tool_call>{"name": "add_positive_point", "arguments": {"point_2d": [1, 2]}}',
            click(1, 2),
            "another name",
        ),
        (GOOD.replace("arguments", "parameters"), BOX, "arguments in another place"),
        (
            '<tool_call>{"name": "add_bbox", "bbox_2d": [100, 200, 300, 400]}</tool_call>',
            BOX,
            "arguments in another place",
        ),
        (
            '<tool_call>{"name": "add_bbox", "arguments": "{\\"bbox_2d\\": [100, 200, 300, 400]}"}'
            "</tool_call>",
            BOX,
            "arguments in a string",
        ),
        (f'<tool_call>{{"type": "function", "function": {BODY}}}</tool_call>', BOX, "'function'"),
        (f'{{"tool_call": {BODY}}}', BOX, "'tool_call'"),
        (f"<tool_call>[{BODY}]</tool_call>", BOX, "a list"),
        (
            '<tool_call>{"name": "add_point", "arguments": {"point_2d": [1, 2], '
            '"point_type": "Positive "}}</tool_call>',
            click(1, 2),
            "point_type",
        ),
        # coordinates
        (GOOD.replace("[100, 200, 300, 400]", "[100.2, 199.6, 300.0, 4e2]"), BOX, "rounded"),
        (GOOD.replace("[100, 200, 300, 400]", '["100", "200", 300, 400]'), BOX, "rounded"),
        (GOOD.replace("[100, 200, 300, 400]", "[[100, 200], [300, 400]]"), BOX, "in pairs"),
        (GOOD.replace("[100, 200, 300, 400]", "[0, 0, 1000, 1000]"), box(0, 0, 999, 999), "round"),
        (GOOD.replace("[100, 200, 300, 400]", "[300, 400, 100, 200]"), BOX, ""),
        (GOOD.replace("[100, 200, 300, 400]", "[0, 0, 1, 1]"), box(0, 0, 1, 1), ""),
    ],
)
def test_what_is_plain_is_repaired(text, prompt, repair):
    answer = read_answer(text)
    assert answer.prompt == prompt, answer.error
    assert repair in ", ".join(answer.repairs) and bool(repair) == bool(answer.repairs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no <tool_call>...</tool_call> found"),
        ("The mask is good.", "no <tool_call>...</tool_call> found"),
        ("<tool_call>", "holds no object"),
        ("<tool_call>stop the car</tool_call>", "holds no object"),
        # cut off where it could mean anything
        ('<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [100, 200, 30', "of a number"),
        ('<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [100, 200', "of a number"),
        ('<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [100, 200,', "breaks off"),
        (GOOD.removesuffix("}</tool_call>"), "breaks off with brackets open at its end"),
        (GOOD.removesuffix("}}</tool_call>"), "breaks off with brackets open at its end"),
        ('<tool_call>{"name": "stop_action",', "breaks off with brackets open at its end"),
        ('<tool_call>{"name": "stop_act', "a string is not closed"),
        ('<tool_call>{"name": ', "a value is missing at its end"),
        ('<tool_call>{"name"', "a colon is missing after 'name'"),
        (
            '<tool_call>{"name": "add_point", "arguments": {"point_2d": [1, 2]}}',
            "point_type must be",
        ),
        ("<tool_call>{}</tool_call>", "must be {"),
        ("<tool_call>[]</tool_call>", "must be {"),
        ('<tool_call>[[{"name": "stop"}]]</tool_call>', "must be {"),
        (
            '<tool_call>{"name": "zoom_in"}</tool_call>',
            "unknown tool 'zoom_in'; use one of add_bbox",
        ),
        ('<tool_call>{"name": "add_bbox", "arguments": [1, 2]}</tool_call>', "must be an object"),
        ('<tool_call>{"name": "add_bbox", "arguments": "{"}</tool_call>', "got None"),
        ('<tool_call>{"name": "add_bbox", "arguments": "?"}</tool_call>', "are not valid JSON"),
        (GOOD.replace("400", "1001"), "must hold integers 0..999, got 1001"),
        (GOOD.replace("100", "-1"), "must hold integers 0..999, got -1"),
        (GOOD.replace("100", "NaN"), "must hold integers"),
        (GOOD.replace("100", "1e999"), "must hold integers"),
        (GOOD.replace("100", "true"), "must hold integers"),
        (GOOD.replace("100", "9" * 5000), "a number has 5000 digits"),
        (GOOD.replace("[100, 200, 300, 400]", "[0.1, 0.2, 0.5, 0.9]"), "not fractions"),
        (GOOD.replace("[100, 200, 300, 400]", "[0, 0, 0.5, 1]"), "not fractions"),
        ("<tool_call>" + '{"a": ' * 50 + "1", "nested too deeply"),
    ],
)
def test_what_is_not_plain_is_refused_with_a_reason(text, words):
    answer = read_answer(text)
    assert answer.prompt is None and words in answer.error and answer.repairs == ()


def test_the_first_call_that_can_be_read_counts():
    stop = encode_tool_call(Stop())
    assert read_answer(GOOD + stop).prompt == BOX
    assert read_answer(f"{BODY}\n{encode_tool_call(Stop())[11:-12]}").prompt == BOX
    answer = read_answer("<tool_call>{]</tool_call>" + GOOD + stop)
    assert answer.prompt == BOX and "an unreadable call before it" in answer.repairs
    broken = '<tool_call>{"name": "zoom"}</tool_call>'
    answer = read_answer(broken + "<tool_call>nothing</tool_call>")
    assert "unknown tool 'zoom'" in answer.error  # the first one's error
    assert read_answer(broken * 7 + GOOD).prompt == BOX
    assert read_answer(broken * 8 + GOOD).prompt is None  # it has to end somewhere


def test_calls_in_thoughts_count_for_nothing():
    thought = f"<think>perhaps {encode_tool_call(Stop())}</think>"
    for text in (
        thought + GOOD,
        thought.removeprefix("<think>") + GOOD,  # the chat template opened it
        GOOD + thought,
        f"{thought} so {thought}{GOOD}",
    ):
        assert read_answer(text).prompt == read_answer(text, thinking=True).prompt == BOX
        assert "thinking is not allowed" in read_answer(text, thinking="refuse").error
    for text in (thought, f"<think>perhaps {GOOD}"):
        assert read_answer(text).prompt is None
    assert "was not closed with </think>" in read_answer(f"<think>{GOOD}").error
    empty = f"<think>\n\n</think>\n\n{GOOD}"  # no thought in it
    assert read_answer(empty, thinking="refuse").prompt == BOX


def test_tools_that_are_left_out_are_refused():
    tools = ("box", "positive_point", "stop")
    assert read_answer(GOOD, tools).prompt == BOX
    assert read_answer(encode_tool_call(click(1, 2)), tools).prompt == click(1, 2)
    assert "is not allowed" in read_answer(encode_tool_call(click(1, 2, False)), tools).error
    for text in ("undo", "undo_action", "add_negative_point", "negative_point"):
        answer = read_answer(
            f'<tool_call>{{"name": "{text}", "arguments": {{"x": 1, "y": 2}}}}', tools
        )
        assert "use one of add_bbox, add_point, stop_action" in answer.error


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_json_is_read_as_json(value):
    read, forgiven = read_lenient_json(json.dumps(value))
    assert read == value and not forgiven


CELLS = st.integers(0, 999)


@given(st.lists(CELLS, min_size=4, max_size=4), st.integers(1, 90))
def test_a_call_cut_anywhere_means_the_same_or_nothing(cells, cut):
    whole = encode_tool_call(box(*cells))
    answer = read_answer(whole[: max(0, len(whole) - cut)])
    assert answer.prompt in (None, read_answer(whole).prompt)


@given(JSON, st.sampled_from([*TOOL_CALL_OF_TOOL.values(), *TOOLS, "add_positive_point"]))
def test_any_arguments_are_read_or_refused(arguments, name):
    for text in (
        json.dumps({"name": name, "arguments": arguments}),
        repr({"name": name, "arguments": arguments}),
    ):
        answer = read_answer(f"<tool_call>{text}")
        assert (answer.prompt is None) == bool(answer.error) and len(answer.error) < 500
        if answer.prompt is not None:
            assert read_answer(encode_tool_call(answer.prompt)).prompt == answer.prompt


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 10_000,
        "<tool_call>{" * 9_000,
        '{"name": ' * 12_000,
        '<tool_call>{"name": "' + "\\a" * 50_000,
        "<tool_call>{'" * 9_000,
        "<think>" * 15_000,
        "<think></think>" * 7_000,
        "</think>" * 12_000,
        "<tool_call>[" + "[" * 100_000,
        "<tool_call>[" + "1," * 50_000,
        '<tool_call>{"a":1' + ',"a":1' * 17_000,
        "<tool_call>" + " " * 100_000,
        "{" + " " * 100_000 + "{",
        ("{" + " " * 100) * 1_000,
        "\u201c" * 100_000,
        '<tool_call>{"name": "add_bbox", "arguments": "' + "[" * 99_000 + '"}',
        GOOD.replace("100", "1" * 100_000),
    ],
    ids=lambda text: text[:24].encode("unicode_escape").decode(),
)
def test_a_hundred_kilobytes_cost_no_time(text):
    started = time.thread_time()  # not what other programs take meanwhile
    read_answer(text, thinking=True)
    assert time.thread_time() - started < 1
