"""Tool calls: MedSAM-Agent's names are written and read, in whatever coordinates."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    COORDINATES,
    TOOL_CALL_NAMES,
    AddBox,
    AddPoint,
    Clear,
    Coordinates,
    PromptError,
    Stop,
    Undo,
    encode_tool_call,
    read_answer,
    write_call,
)

CELLS = st.integers(0, 999)
ON_GRID = CELLS.map(lambda v: (v + 0.5) / 1000)
FRACTIONS = st.floats(0, 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def prompts(numbers):
    return st.one_of(
        st.builds(AddBox, numbers, numbers, numbers, numbers),
        st.builds(AddPoint, numbers, numbers, st.booleans()),
        st.sampled_from([Undo(), Clear(), Stop()]),
    )


def call(name: object, **arguments: object) -> str:
    return write_call(name, arguments)


@given(prompts(ON_GRID), st.text(alphabet=st.characters(exclude_characters="<")))
def test_what_is_written_is_read_back(prompt, words):
    answer = read_answer(f"{words}{encode_tool_call(prompt)}{words}")
    assert answer.prompt == prompt and not answer.repairs


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (call("add_bbox", bbox_2d=[100, 200, 300, 400]), AddBox(0.1005, 0.2005, 0.3005, 0.4005)),
        (call("add_bbox", bbox_2d=[300, 400, 100, 200]), AddBox(0.1005, 0.2005, 0.3005, 0.4005)),
        (call("add_point", point_2d=[0, 999], point_type="positive"), AddPoint(0.0005, 0.9995)),
        (call("add_positive_point", x=5, y=6), AddPoint(0.0055, 0.0065)),
        (call("add_negative_point", x=5, y=6), AddPoint(0.0055, 0.0065, False)),
        (call("stop_action"), Stop()),
        (call("undo_action"), Undo()),
        (call("clear_action"), Clear()),
        (write_call("stop_action", None), Stop()),
    ],
)
def test_calls_in_medsam_agents_words(text, prompt):
    assert read_answer(text).prompt == prompt


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
    tools = [read_answer(call(name, **arguments)).prompt.tool for name in TOOL_CALL_NAMES]
    assert tools == ["box", "positive_point", "undo", "clear", "stop"]


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
@example("add_bbox", [[[[[[[[[[]]]]]]]]]])
def test_any_arguments_are_read_or_refused(name, arguments):
    for kind in COORDINATES:
        coordinates = Coordinates(kind, 64)
        answer = read_answer(write_call(name, arguments), coordinates=coordinates)
        assert (answer.prompt is None) == bool(answer.error) and len(answer.error) < 500
        if answer.prompt is not None:
            text = encode_tool_call(answer.prompt, coordinates)
            assert read_answer(text, coordinates=coordinates).prompt == answer.prompt


# coordinates ------------------------------------------------------------------------------------
@given(prompts(FRACTIONS), st.sampled_from(COORDINATES), st.integers(8, 4096))
def test_in_all_coordinates_what_is_written_is_read_within_half_a_step(prompt, kind, side):
    coordinates = Coordinates(kind, side)
    text = encode_tool_call(prompt, coordinates)
    answer = read_answer(text, coordinates=coordinates)
    assert answer.prompt is not None and answer.prompt.tool == prompt.tool and not answer.repairs
    for name, value in vars(prompt).items():
        assert abs(getattr(answer.prompt, name) - value) <= 0.5 / coordinates.bins + 1e-12
    assert encode_tool_call(answer.prompt, coordinates) == text


@pytest.mark.parametrize(
    ("kind", "values", "box"),
    [
        ("fraction", [0.1, 0.2, 0.3, 0.4], AddBox(0.1, 0.2, 0.3, 0.4)),
        ("fraction", [0, 0, 1, 1], AddBox(0, 0, 1, 1)),
        ("fraction", ["0.1", 0.2, 0.3, 0.40001], AddBox(0.1, 0.2, 0.3, 0.4)),
        ("fraction", [-0.00001, 0.2, 0.3, 1.00001], AddBox(0, 0.2, 0.3, 1)),
        ("pixel", [0, 0, 15, 31], AddBox(0.5 / 64, 0.5 / 64, 15.5 / 64, 31.5 / 64)),
        ("pixel", [0, 0, 64, 63.6], AddBox(0.5 / 64, 0.5 / 64, 63.5 / 64, 63.5 / 64)),
        ("grid1000", [0, 0, 1000, 999.6], AddBox(0.0005, 0.0005, 0.9995, 0.9995)),
    ],
)
def test_coordinates_are_read_as_their_kind_says(kind, values, box):
    for text in (call("add_bbox", bbox_2d=values), json.dumps({"bbox_2d": values})):
        answer = read_answer(text, coordinates=Coordinates(kind, 64))
        assert answer.prompt == box, answer.error


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("fraction", 100, "must hold fractions 0..1 of width and height, got 100"),
        ("fraction", -0.1, "must hold fractions 0..1 of width and height, got -0.1"),
        ("fraction", 1.001, "got 1.001"),
        ("pixel", 65, "must hold integers 0..63, pixels of the 64 x 64 image, got 65"),
        ("pixel", -1, "integers 0..63, pixels of the 64 x 64 image, got -1"),
        ("pixel", 1000, "got 1000"),
        *[(kind, value, "must hold") for kind in COORDINATES for value in (None, True, "x", {})],
        *[(kind, value, "must hold") for kind in COORDINATES for value in (1e300, 10**30, -1e9)],
        *[(kind, float(word), "must hold") for kind in COORDINATES for word in ("nan", "inf")],
        ("grid1000", -1, "must hold integers 0..999, got -1"),
        ("grid1000", 1001, "must hold integers 0..999, got 1001"),
    ],
)
def test_a_coordinate_that_is_none_is_named(kind, value, words):
    for text in (
        call("add_bbox", bbox_2d=[0, 0, value, 1]),
        call("add_point", point_2d=[value, 1], point_type="positive"),
        call("add_positive_point", x=1, y=value),
    ):
        answer = read_answer(text, coordinates=Coordinates(kind, 64))
        assert answer.prompt is None and words in answer.error


def test_fractions_where_cells_or_pixels_are_asked_for_are_refused():
    for kind in ("grid1000", "pixel"):
        for values in ([0.1, 0.2, 0.5, 0.9], [0, 0, 0.5, 1]):
            text = call("add_bbox", bbox_2d=values)
            assert "not fractions" in read_answer(text, coordinates=Coordinates(kind, 64)).error


def test_unknown_coordinates_are_refused():
    with pytest.raises(PromptError, match="one of grid1000, fraction, pixel, got 'percent'"):
        Coordinates("percent")
    with pytest.raises(PromptError, match="need an image"):
        Coordinates("pixel")
