"""Dice and IoU against set arithmetic, and the laws they keep."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_gym.episodes.metrics import dice, dice_from_counts, iou, iou_from_counts


@st.composite
def pairs(draw):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
    elements = st.booleans() | st.just(False)
    first = draw(arrays(bool, shape, elements=elements, fill=st.just(False)))
    return first, draw(st.just(first.copy()) | arrays(bool, shape, elements=elements))


def by_sets(prediction, truth) -> tuple[Fraction, Fraction]:
    p, t = (set(zip(*np.nonzero(mask), strict=True)) for mask in (prediction, truth))
    if not p | t:
        return Fraction(1), Fraction(1)
    return Fraction(2 * len(p & t), len(p) + len(t)), Fraction(len(p & t), len(p | t))


@given(pairs())
def test_scores_equal_set_arithmetic(pair):
    assert (dice(*pair), iou(*pair)) == tuple(map(float, by_sets(*pair)))


@given(pairs())
def test_laws(pair):
    d, i = dice(*pair), iou(*pair)
    assert d == dice(*pair[::-1]) and i == iou(*pair[::-1])
    assert 0 <= i <= d <= 1
    assert (d == 1) == (i == 1) == np.array_equal(*pair)
    assert d == pytest.approx(2 * i / (1 + i))
    prediction, truth = pair
    counts = int((prediction & truth).sum()), int(prediction.sum()), int(truth.sum())
    assert dice_from_counts(*counts) == d and iou_from_counts(*counts) == i


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ([[0, 0]], [[0, 0]], (1.0, 1.0)),
        ([[1, 0]], [[0, 0]], (0.0, 0.0)),
        ([[0, 0]], [[0, 1]], (0.0, 0.0)),
        ([[1, 1]], [[0, 1]], (2 / 3, 1 / 2)),
    ],
)
def test_by_example(prediction, truth, expected):
    prediction, truth = np.array(prediction, bool), np.array(truth, bool)
    assert (dice(prediction, truth), iou(prediction, truth)) == expected


@pytest.mark.parametrize("score", [dice, iou])
@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        (np.zeros((2, 3), np.uint8), "uint8"),
        (np.zeros((2, 3)), "float64"),
        (np.zeros((3, 2), bool), r"\(3, 2\)"),
        (np.zeros(6, bool), r"\(6,\)"),
    ],
)
def test_masks_of_another_kind_or_shape_are_refused(score, prediction, words):
    truth = np.zeros((2, 3), bool)
    with pytest.raises(ValueError, match=f"must be bool arrays of one shape, got .*{words}"):
        score(prediction, truth)
    with pytest.raises(ValueError, match=words):
        score(truth, prediction)
