"""Prompt rows become SAM's tokens: order, labels, pixels and padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones import Embedding, PromptRow
from medseg_gym.backbones.batching.collate import INERT, collate
from medseg_gym.prompts import AddBox, AddPoint

CPU = torch.device("cpu")
WIDE = Embedding((), (50, 100), (32, 64))  # (height, width): drawn at 0.64 of its size
SQUARE = Embedding((), (64, 64), (64, 64))
BOX = AddBox(0.1, 0.2, 0.5, 0.6)
CLICKS = (AddPoint(0.25, 0.75), AddPoint(1.0, 0.0, positive=False))


def test_clicks_come_before_the_corners_and_a_bare_click_ends_in_not_a_point():
    batch = collate([PromptRow(WIDE, BOX, CLICKS), PromptRow(WIDE, None, CLICKS)], CPU)
    assert batch.labels.tolist() == [[1, 0, 2, 3], [1, 0, -1, INERT]]
    assert batch.padded and batch.labels.dtype == torch.int64


def test_sam2_treats_corners_as_points():
    rows = [PromptRow(WIDE, BOX, CLICKS), PromptRow(WIDE, None, CLICKS)]
    batch = collate(rows, CPU, boxes_as_points=True)
    assert batch.labels.tolist() == [[2, 3, 1, 0, -1], [1, 0, -1, INERT, INERT]]


def test_a_fraction_becomes_sams_pixel_in_the_input_frame():
    batch = collate([PromptRow(WIDE, BOX), PromptRow(SQUARE, BOX)], CPU)
    in_pixels = np.array([[0.1 * 100, 0.2 * 50], [0.5 * 100, 0.6 * 50]]) - 0.5
    assert np.allclose(batch.coords[0], in_pixels * 0.64, atol=1e-5)
    assert np.allclose(batch.coords[1], np.array([[0.1, 0.2], [0.5, 0.6]]) * 64 - 0.5, atol=1e-5)
    assert batch.coords.dtype == torch.float32 and not batch.padded


@given(
    st.lists(
        st.tuples(st.none() | st.from_type(AddBox), st.lists(st.from_type(AddPoint), max_size=4)),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
)
def test_a_rows_tokens_do_not_depend_on_its_neighbours(plans, boxes_as_points):
    rows = [PromptRow(WIDE, box, tuple(clicks)) for box, clicks in plans]
    batch = collate(rows, CPU, boxes_as_points=boxes_as_points)
    lengths = []
    for i, row in enumerate(rows):
        alone = collate([row], CPU, boxes_as_points=boxes_as_points)
        assert not alone.padded
        lengths.append(alone.labels.shape[1])
        assert torch.equal(batch.labels[i, : lengths[-1]], alone.labels[0])
        assert torch.equal(batch.coords[i, : lengths[-1]], alone.coords[0])
        assert (batch.labels[i, lengths[-1] :] == INERT).all()
    assert batch.labels.shape[1] == max(lengths)
    assert batch.padded == (len(set(lengths)) > 1)


@pytest.mark.parametrize("boxes_as_points", [False, True])
def test_a_row_without_prompts_is_one_token_that_says_so(boxes_as_points):
    batch = collate([PromptRow(WIDE)], CPU, boxes_as_points=boxes_as_points)
    assert batch.labels.tolist() == [[-1]]
