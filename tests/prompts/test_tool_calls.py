"""Tool calls: MedSAM-Agent's names are read, and nothing a model writes breaks the reader."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    TOOL_CALL_NAMES,
    AddBox,
    AddPoint,
    Clear,
    PromptError,
    Stop,
    Undo,
    decode_tool_call,
    encode_tool_call,
)

CELLS = st.integers(0, 999)
ON_GRID = CELLS.map(lambda v: (v + 0.5) / 1000)
PROMPTS = st.one_of(
    st.builds(AddBox, ON_GRID, ON_GRID, ON_GRID, ON_GRID),
    st.builds(AddPoint, ON_GRID, ON_GRID, st.booleans()),
    st.sampled_from([Undo(), Clear(), Stop()]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def call(name: object, **arguments: object) -> str:
    return wrap(json.dumps({"name": name, "arguments": arguments}))


def wrap(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


@given(PROMPTS)
def test_what_is_written_is_read_back(prompt):
    assert decode_tool_call(encode_tool_call(prompt)) == prompt


@given(PROMPTS, st.text(alphabet=st.characters(exclude_characters="<")))
def test_a_call_is_found_among_other_words(prompt, words):
    assert decode_tool_call(f"{words}{encode_tool_call(prompt)}{words}") == prompt


def test_the_first_of_several_calls_counts():
    text = encode_tool_call(Undo()) + encode_tool_call(Stop())
    assert decode_tool_call(text) == Undo()


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (call("add_bbox", bbox_2d=[100, 200, 300, 400]), AddBox(0.1005, 0.2005, 0.3005, 0.4005)),
        (call("add_bbox", bbox_2d=[300, 400, 100, 200]), AddBox(0.1005, 0.2005, 0.3005, 0.4005)),
        (call("add_point", point_2d=[0, 999], point_type="positive"), AddPoint(0.0005, 0.9995)),
        (
            call("add_point", point_2d=[5.0, 6], point_type="negative"),
            AddPoint(0.0055, 0.0065, False),
        ),
        (call("add_positive_point", x=5, y=6), AddPoint(0.0055, 0.0065)),
        (call("add_negative_point", x=5, y=6), AddPoint(0.0055, 0.0065, False)),
        (call("stop_action"), Stop()),
        (call("undo_action"), Undo()),
        (call("clear_action"), Clear()),
        (wrap('{"name": "stop_action"}'), Stop()),
        (wrap('\n {"name": "stop_action", "arguments": null}\u00a0\n'), Stop()),
    ],
)
def test_calls_in_medsam_agents_words(text, prompt):
    assert decode_tool_call(text) == prompt


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        (
            AddBox(0, 0.5, 0.25, 1),
            {"name": "add_bbox", "arguments": {"bbox_2d": [0, 500, 250, 999]}},
        ),
        (
            AddPoint(0.1, 0.9, False),
            {"name": "add_point", "arguments": {"point_2d": [100, 900], "point_type": "negative"}},
        ),
        (Stop(), {"name": "stop_action", "arguments": {}}),
    ],
)
def test_calls_are_written_in_medsam_agents_words(prompt, written):
    text = encode_tool_call(prompt)
    assert text.startswith("<tool_call>") and text.endswith("</tool_call>")
    body = text.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert json.loads(body) == written


def test_every_name_it_tells_the_model_of_is_read():
    arguments = {"bbox_2d": [1, 2, 3, 4], "point_2d": [1, 2], "point_type": "positive"}
    tools = [decode_tool_call(call(name, **arguments)).tool for name in TOOL_CALL_NAMES]
    assert tools == ["box", "positive_point", "undo", "clear", "stop"]


BAD_COORDINATES = [-1, 1000, 1.5, True, False, None, "5", [5], 10**30, 1e300, -1e-9]


@pytest.mark.parametrize("value", BAD_COORDINATES, ids=repr)
def test_a_coordinate_off_the_grid_is_named(value):
    for text in (
        call("add_bbox", bbox_2d=[1, 2, value, 4]),
        call("add_point", point_2d=[value, 4], point_type="positive"),
        call("add_positive_point", x=4, y=value),
    ):
        with pytest.raises(PromptError, match=r"must hold integers 0\.\.999, got"):
            decode_tool_call(text)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_beyond_json_are_off_the_grid(word):
    with pytest.raises(PromptError, match="must hold integers"):
        decode_tool_call(
            wrap(f'{{"name": "add_bbox", "arguments": {{"bbox_2d": [1,2,3,{word}]}}}}')
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no <tool_call>"),
        ("I would stop here.", "no <tool_call>"),
        ('<tool_call>{"name": "stop_action"}', "no <tool_call>"),
        (wrap(""), "not valid JSON"),
        (wrap("{'name': 'stop_action'}"), "not valid JSON"),
        (wrap('{"name": "stop_action"} {}'), "not valid JSON"),
        (wrap("[]"), "must be {"),
        (wrap("{}"), "must be {"),
        (call(7), "must be {"),
        (call("add_boxes", bbox_2d=[1, 2, 3, 4]), "unknown tool 'add_boxes'; use one of add_bbox"),
        (wrap('{"name": "add_bbox", "arguments": [1, 2, 3, 4]}'), "must be an object"),
        (call("add_bbox"), "bbox_2d of add_bbox must hold 4 integers, got None"),
        (call("add_bbox", bbox_2d=[1, 2, 3]), "must hold 4 integers"),
        (call("add_bbox", bbox_2d="1234"), "must hold 4 integers"),
        (call("add_point", point_2d=[1, 2]), "point_type must be"),
        (call("add_point", point_2d=[1, 2], point_type=["positive"]), "point_type must be"),
        (call("add_positive_point", x=1), "must hold integers 0..999, got None"),
    ],
)
def test_unreadable_calls_say_what_is_wrong(text, words):
    with pytest.raises(PromptError) as caught:
        decode_tool_call(text)
    assert words in str(caught.value)


def reads_or_refuses(text: str) -> None:
    """Any exception but PromptError fails the test; so does a message no model could read."""
    try:
        prompt = decode_tool_call(text)
    except PromptError as error:
        assert 0 < len(str(error)) < 400
    else:
        assert decode_tool_call(encode_tool_call(prompt)) == prompt


@given(st.text())
def test_any_text_is_read_or_refused(text):
    reads_or_refuses(text)
    reads_or_refuses(wrap(text))


@given(JSON)
@example([[[[[[[[[[]]]]]]]]]])
def test_any_json_is_read_or_refused(value):
    reads_or_refuses(wrap(json.dumps(value)))


@given(
    st.sampled_from([*TOOL_CALL_NAMES, "add_positive_point", "add_negative_point"]),
    st.fixed_dictionaries(
        {},
        optional={
            "bbox_2d": JSON | st.lists(CELLS | JSON, min_size=4, max_size=4),
            "point_2d": JSON | st.lists(CELLS | JSON, min_size=2, max_size=2),
            "point_type": JSON | st.sampled_from(["positive", "negative"]),
            "x": CELLS | JSON,
            "y": CELLS | JSON,
        },
    )
    | JSON,
)
def test_any_arguments_are_read_or_refused(name, arguments):
    reads_or_refuses(wrap(json.dumps({"name": name, "arguments": arguments})))


@pytest.mark.parametrize(
    "body",
    [
        "[" * 200_000,
        '{"a":' * 200_000,
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, ' + "9" * 5000 + "]}}",
        '{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, "' + "9" * 50_000 + '"]}}',
        '{"name": "' + "x" * 50_000 + '"}',
        "\ud800\udfff\0",
    ],
    ids=lambda body: body[:12].encode("unicode_escape").decode(),
)
def test_runaway_output_is_refused(body):
    reads_or_refuses(wrap(body))


def test_a_model_that_repeats_blanks_or_tags_costs_no_time():
    started = time.thread_time()  # not what other programs take meanwhile
    reads_or_refuses("<tool_call>" + " " * 100_000)
    reads_or_refuses("<tool_call> " * 100_000)
    assert time.thread_time() - started < 1
