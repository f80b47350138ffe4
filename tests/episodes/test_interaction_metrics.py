"""NoC, area under Dice against turns and stop regret: by example and by law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.episodes.metrics import NoC, dice_auc, noc, stop_regret

CURVES = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("iou", "expected"),
    [
        ([0, 0.5, 0.85, 0.9], (2, False)),
        ([0, 0.85, 0.1], (1, False)),  # reached, though spoiled afterwards
        ([0, 0.5], (5, True)),  # gave up early
        ([0, 0.1, 0.2, 0.3, 0.4, 0.5], (5, True)),
        ([0, 0, 0, 0, 0, 0.9], (5, False)),  # just in time: 5, and no failure
        ([0, 0, 0, 0, 0, 0, 0.9], (5, True)),  # too late
        ([1.0], (0, False)),  # absent target, untouched
        ([1.0, 0.0], (0, False)),
    ],
)
def test_noc_by_example(iou, expected):
    assert noc(iou, 0.85, 5) == NoC(*expected)


@given(CURVES, st.integers(1, 8))
def test_noc_laws(iou, max_turns):
    counts = [noc(iou, threshold, max_turns) for threshold in (0.0, 0.8, 0.85, 0.9)]
    assert counts[0] == (0, False)
    assert counts == sorted(counts)  # a higher bar takes longer and fails sooner
    for (turns, failed), threshold in zip(counts, (0.0, 0.8, 0.85, 0.9), strict=True):
        assert failed == (max(iou[: max_turns + 1]) < threshold)
        if not failed:
            assert iou[turns] >= threshold and all(v < threshold for v in iou[:turns])


@given(CURVES, st.integers(1, 8))
def test_the_area_is_the_trapezoids(dice, max_turns):
    held = (dice + [dice[-1]] * max_turns)[: max_turns + 1]
    assert dice_auc(dice, max_turns) == pytest.approx(np.trapezoid(held) / max_turns)


@given(CURVES, st.integers(1, 8), st.floats(0, 1))
def test_area_laws(dice, max_turns, level):
    area = dice_auc(dice, max_turns)
    assert -1e-12 <= area <= 1 + 1e-12
    assert dice_auc([level], max_turns) == pytest.approx(level)
    assert dice_auc([v * level for v in dice], max_turns) == pytest.approx(level * area)
    assert dice_auc([max(v, level) for v in dice], max_turns) >= area - 1e-12


def test_a_perfect_first_prompt():
    assert dice_auc([0, 1], 5) == pytest.approx(0.9)


@given(CURVES)
def test_regret_laws(dice):
    regret = stop_regret(dice)
    assert 0 <= regret <= 1
    assert (regret == 0) == (dice[-1] == max(dice))
    assert stop_regret([*dice, max(dice)]) == 0


def test_regret_by_example():
    assert stop_regret([0, 0.9, 0.7]) == pytest.approx(0.2)
    assert stop_regret([1.0, 0.0]) == 1  # an empty mask was right


def test_misuse_is_refused():
    for call in (lambda: noc([], 0.8, 5), lambda: dice_auc([], 5), lambda: stop_regret([])):
        with pytest.raises(ValueError, match="a curve needs"):
            call()
    with pytest.raises(ValueError, match="max_turns must be at least 1"):
        dice_auc([0.5], 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_curve_with_a_score_that_is_none_has_no_metric(bad, place):
    curve = [0.2, 0.5, 0.9]
    curve[place] = bad
    for metric in (
        lambda: noc(curve, 0.8, 5),
        lambda: dice_auc(curve, 5),
        lambda: stop_regret(curve),
    ):
        with pytest.raises(ValueError, match="finite"):
            metric()
    with pytest.raises(ValueError, match="threshold"):
        noc([0.2, 0.9], bad, 5)
