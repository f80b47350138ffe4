"""Prompts refuse coordinates that are not fractions of the image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.prompts import TOOLS, AddBox, AddPoint, Clear, PromptError, Stop, Undo

BAD = [-0.001, 1.001, float("nan"), float("inf"), 10**400, True, "0.5", None, 0.5j, [0.5]]


@pytest.mark.parametrize("value", BAD, ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize("place", range(4))
def test_a_box_names_the_coordinate_that_is_no_fraction(value, place):
    corners = [0.1, 0.2, 0.3, 0.4]
    corners[place] = value
    name = ("x1", "y1", "x2", "y2")[place]
    with pytest.raises(PromptError, match=rf"AddBox\.{name} must be a fraction"):
        AddBox(*corners)


@pytest.mark.parametrize("value", BAD, ids=lambda v: repr(v)[:12])
def test_a_point_names_the_coordinate_that_is_no_fraction(value):
    with pytest.raises(PromptError, match=r"AddPoint\.x must be a fraction"):
        AddPoint(value, 0.5)
    with pytest.raises(PromptError, match=r"AddPoint\.y must be a fraction"):
        AddPoint(0.5, value)


@given(*[st.floats(0, 1)] * 4)
def test_a_box_is_the_same_whichever_corners_are_given(x1, y1, x2, y2):
    box = AddBox(x1, y1, x2, y2)
    assert box == AddBox(x2, y2, x1, y1) == AddBox(x1, y2, x2, y1)
    assert [box.x1, box.x2, box.y1, box.y2] == [*sorted((x1, x2)), *sorted((y1, y2))]
    assert box.is_empty == (x1 == x2 or y1 == y2)


def test_numbers_of_numpy_become_plain_ones():
    point = AddPoint(np.float32(0.25), np.int64(1))
    assert point == AddPoint(0.25, 1.0) and json.dumps(point.x) == "0.25"
    box = AddBox(*np.array([0.5, 0.75, 0.25, 0], np.float32))
    assert json.loads(json.dumps([box.x1, box.y1, box.x2, box.y2])) == [0.25, 0, 0.5, 0.75]


def test_every_tool_has_its_prompt():
    prompts = [
        AddBox(0, 0, 1, 1),
        AddPoint(0, 0),
        AddPoint(0, 0, positive=False),
        Undo(),
        Clear(),
        Stop(),
    ]
    assert tuple(prompt.tool for prompt in prompts) == TOOLS
