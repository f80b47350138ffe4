"""The array action of volumes: every slice has a cell, and what is written reads back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import AddBox, AddPoint, Clear, PromptError, Stop, Undo
from medseg_gym.prompts.volumes import VOLUME_TOOLS, Look, Propagate, SlicePrompt, VolumeCodec

PROMPTS = [
    SlicePrompt(3, AddBox(0.125, 0.25, 0.5, 0.75)),
    SlicePrompt(0, AddPoint(0.125, 0.25)),
    SlicePrompt(4, AddPoint(0.125, 0.25, positive=False)),
    Propagate(),
    Look(2),
    Undo(),
    Clear(),
    Stop(),
]


def test_tools_come_in_the_order_of_the_action():
    assert tuple(prompt.tool for prompt in PROMPTS) == VOLUME_TOOLS
    codec = VolumeCodec(5, bins=4)
    rows = [codec.encode(prompt, depth=5) for prompt in PROMPTS]
    assert [row[0] for row in rows] == list(range(8))
    assert codec.space.nvec.tolist() == [8, 5, 4, 4, 4, 4]
    assert [row[1] for row in rows] == [3, 0, 4, 0, 2, 0, 0, 0]  # as deep: cells are indices


@given(st.integers(1, 700), st.integers(2, 700))
def test_every_slice_has_a_cell_where_there_are_enough(depth, slices):
    codec = VolumeCodec(slices, bins=8)
    cells = [codec.slice_cell(index, depth) for index in range(depth)]
    back = [codec.slice_of(cell, depth) for cell in cells]
    assert all(0 <= cell < slices for cell in cells)
    assert all(0 <= codec.slice_of(cell, depth) < depth for cell in range(slices))
    if depth <= slices:
        assert back == list(range(depth))
    else:
        assert max(abs(a - b) for a, b in zip(back, range(depth), strict=True)) <= depth / slices


@given(st.integers(0, 7), st.integers(0, 8), st.lists(st.integers(0, 15), min_size=4, max_size=4))
def test_what_is_written_reads_back(tool, cell, corners):
    codec = VolumeCodec(9, bins=16)
    (prompt,) = codec.decode(np.array([[tool, cell, *corners]]), [9])
    row = codec.encode(prompt, 9)
    assert codec.decode(row[None], [9]) == [prompt]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([[8, 0, 0, 0, 0, 0]], "outside the action space"),
        ([[0, 9, 0, 0, 0, 0]], "outside the action space"),
        ([[0, 0, 0, 0, 0]], r"\(n, 6\)"),
        ([[0.0, 0, 0, 0, 0, 0]], "integer"),
    ],
)
def test_rows_outside_the_space_are_refused(row, words):
    with pytest.raises(PromptError, match=words):
        VolumeCodec(9, bins=16).decode(np.array(row), [9])


def test_bad_settings_and_slices_are_refused():
    with pytest.raises(PromptError, match="tools must be"):
        VolumeCodec(tools=["box", "brush"])
    with pytest.raises(PromptError, match="slices must be"):
        VolumeCodec(slices=1)
    with pytest.raises(PromptError, match="not among"):
        VolumeCodec(tools=["box"]).encode(Propagate(), 3)
    with pytest.raises(PromptError, match="beyond the volume's 3 slices"):
        VolumeCodec().encode(Look(3), 3)
    with pytest.raises(PromptError, match="index of a slice"):
        Look(-1)
