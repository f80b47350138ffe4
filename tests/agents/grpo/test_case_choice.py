"""The choice of cases: all in turn, or by success rate; the same again from the same state."""

import json

import numpy as np
import pytest
from medseg_agents.grpo.case_choice import FLOOR, CaseChoice

from medseg_gym.errors import MedSegError

KEYS = [f"case {i}" for i in range(6)]


def keys_of(groups):
    return [group.key for group in groups]


def test_every_case_is_dealt_once_before_any_is_dealt_again():
    choice = CaseChoice(KEYS, seed=3)
    dealt = [*choice.deal(4), *choice.deal(5), *choice.deal(3)]
    assert [group.number for group in dealt] == list(range(12))
    assert sorted(keys_of(dealt)[:6]) == sorted(keys_of(dealt)[6:]) == KEYS
    assert keys_of(dealt)[:6] != keys_of(dealt)[6:]
    assert keys_of(CaseChoice(KEYS, seed=3).deal(12)) == keys_of(dealt)


def test_cases_that_sometimes_succeed_are_drawn_most():
    choice = CaseChoice(KEYS, curriculum="success", success_dice=0.7)
    for key, dice in zip(KEYS, ([0.9] * 4, [0.1] * 4, [0.9, 0.1] * 2), strict=False):
        choice.observe(key, dice)
    assert [choice.weight(key) for key in KEYS] == pytest.approx(
        [FLOOR, FLOOR, FLOOR + 0.25, *[FLOOR + 0.25] * 3]
    )
    drawn = keys_of(choice.deal(3000))
    shares = np.array([drawn.count(key) for key in KEYS]) / 3000
    expected = np.array([choice.weight(key) for key in KEYS])
    assert np.abs(shares - expected / expected.sum()).max() < 0.03
    choice.observe(KEYS[0], [0.1] * 4)  # it was always solved, and now it is not
    assert choice.weight(KEYS[0]) == FLOOR + 0.25
    metrics = choice.metrics()
    assert metrics["curriculum/cases_seen"] == 3
    assert metrics["curriculum/success_rate"] == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert metrics["curriculum/learnable"] == pytest.approx(2 / 3)
    assert CaseChoice(KEYS).metrics() == {}


@pytest.mark.parametrize("curriculum", ["none", "success"])
def test_a_restored_choice_goes_on_the_same(curriculum):
    choice = CaseChoice(KEYS, 1, curriculum)
    for group in choice.deal(7):
        choice.observe(group.key, [0.9, 0.1])
    other = CaseChoice(KEYS, 1, curriculum)
    other.restore(json.loads(json.dumps(choice.state())))
    assert other.deal(20) == choice.deal(20)
    with pytest.raises(MedSegError, match="damaged"):
        other.restore({"dealt": "many"})
