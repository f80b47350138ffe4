"""The array action: what is written is read back, and what lies outside is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import (
    TOOLS,
    AddBox,
    AddPoint,
    ArrayCodec,
    Clear,
    PromptError,
    Stop,
    Undo,
)

BINS = st.one_of(st.integers(2, 40), st.sampled_from([128, 255, 1000, 1024, 65536]))
SUBSETS = st.lists(st.sampled_from(TOOLS), min_size=1, unique=True)


@st.composite
def codecs_with_prompts(draw):
    """A codec, and a prompt of one of its tools whose coordinates are centres of its cells."""
    codec = ArrayCodec(draw(BINS), draw(SUBSETS))
    a, b, c, d = ((draw(st.integers(0, codec.bins - 1)) + 0.5) / codec.bins for _ in range(4))
    by_tool = {
        "box": AddBox(a, b, c, d),
        "positive_point": AddPoint(a, b, True),
        "negative_point": AddPoint(a, b, False),
        "undo": Undo(),
        "clear": Clear(),
        "stop": Stop(),
    }
    return codec, by_tool[draw(st.sampled_from(codec.tools))]


@given(codecs_with_prompts())
def test_what_is_written_is_read_back(pair):
    codec, prompt = pair
    row = codec.encode(prompt)
    assert row.shape == (5,) and row.dtype == np.int64 and codec.space.contains(row)
    assert codec.decode(row[None]) == [prompt]


@given(BINS, SUBSETS, st.data())
def test_every_action_of_the_space_is_read_and_written_alike(bins, tools, data):
    codec = ArrayCodec(bins, tools)
    row = [data.draw(st.integers(0, n - 1)) for n in codec.space.nvec]
    (prompt,) = codec.decode(np.array([row]))
    assert prompt.tool == codec.tools[row[0]]
    assert codec.decode(codec.encode(prompt)[None]) == [prompt]


def test_tools_have_their_numbers_for_ever():
    prompts = ArrayCodec(10).decode(np.array([[tool, 1, 2, 3, 4] for tool in range(6)]))
    assert prompts == [
        AddBox(0.15, 0.25, 0.35, 0.45),
        AddPoint(0.15, 0.25, True),
        AddPoint(0.15, 0.25, False),
        Undo(),
        Clear(),
        Stop(),
    ]


def test_a_subset_keeps_the_order_of_all_tools():
    codec = ArrayCodec(10, ["stop", "box"])
    assert codec.tools == ("box", "stop")
    assert codec.space.nvec.tolist() == [2, 10, 10, 10, 10]
    assert codec.decode(np.array([[1, 9, 9, 9, 9]])) == [Stop()]


@pytest.mark.parametrize(
    ("fraction", "cell"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.55, 5), (0.999, 9), (1.0, 9)]
)
def test_a_fraction_falls_into_its_cell_and_the_last_holds_one(fraction, cell):
    assert ArrayCodec(10).encode(AddPoint(fraction, 0.0)).tolist() == [1, cell, 0, 0, 0]


@given(BINS, st.floats(0, 1))
def test_the_grid_moves_a_point_by_half_a_cell_at_most(bins, fraction):
    codec = ArrayCodec(bins)
    (prompt,) = codec.decode(codec.encode(AddPoint(fraction, fraction))[None])
    assert abs(prompt.x - fraction) <= 0.5 / bins + 1e-12


@given(*[st.integers(0, 15)] * 4)
def test_corners_come_in_any_order(x1, y1, x2, y2):
    codec = ArrayCodec(16)
    rows = np.array([[0, *c] for c in ((x1, y1, x2, y2), (x2, y1, x1, y2), (x2, y2, x1, y1))])
    box, *others = codec.decode(rows)
    assert box.x1 <= box.x2 and box.y1 <= box.y2
    assert others == [box, box]
    assert box.is_empty == (x1 == x2 or y1 == y2)


def test_entries_a_tool_does_not_use_are_ignored():
    codec = ArrayCodec(8)
    used, unused = codec.decode(np.array([[2, 3, 4, 0, 0], [2, 3, 4, 7, 7]]))
    assert used == unused


def test_rows_stay_in_order_and_none_gives_none():
    codec = ArrayCodec(8)
    assert codec.decode(np.array([[5, 0, 0, 0, 0], [3, 0, 0, 0, 0]], np.uint8)) == [Stop(), Undo()]
    assert codec.decode(np.empty((0, 5), np.int64)) == []


@given(BINS, SUBSETS, st.integers(0, 4), st.data())
def test_an_action_outside_the_space_names_its_slot(bins, tools, column, data):
    codec = ArrayCodec(bins, tools)
    limit = int(codec.space.nvec[column])
    rows = np.zeros((3, 5), np.int64)
    rows[1, column] = data.draw(
        st.one_of(st.integers(limit, 2**62), st.integers(-(2**62), -1)), label="outside"
    )
    with pytest.raises(PromptError, match="of slot 1 is outside the action space"):
        codec.decode(rows)


@pytest.mark.parametrize(
    "actions",
    [
        np.zeros((2, 5)),
        np.zeros((2, 5), bool),
        np.zeros((2, 5), object),
        np.full((2, 5), np.nan),
        np.zeros(5, int),
        np.zeros((2, 4), int),
        np.zeros((1, 2, 5), int),
        "box",
        None,
        7,
    ],
    ids=repr,
)
def test_anything_but_rows_of_five_integers_is_refused(actions):
    with pytest.raises(PromptError, match=r"must be an \(n, 5\) integer array"):
        ArrayCodec(8).decode(actions)


def test_a_tool_that_the_view_lacks_cannot_be_written():
    with pytest.raises(PromptError, match=r"'undo' is not among .*'box', 'stop'"):
        ArrayCodec(8, ["box", "stop"]).encode(Undo())


@pytest.mark.parametrize("tools", [[], ["box", "box"], ["brush"], "box"])
def test_unusable_tools_are_refused(tools):
    with pytest.raises(PromptError, match="tools must be distinct names"):
        ArrayCodec(8, tools)


@pytest.mark.parametrize("bins", [1, 0, -3, 65537])
def test_unusable_bins_are_refused(bins):
    with pytest.raises(PromptError, match="bins must be in"):
        ArrayCodec(bins)
