"""Advantages of turns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medseg_agents.grpo.advantages import group_advantages, reward_to_go, turn_gae

REWARD = st.floats(-1, 1, width=32)
EPISODES = st.lists(st.lists(REWARD, min_size=1, max_size=4), min_size=4, max_size=8)


def test_a_group_is_compared_with_itself_alone():
    rewards, groups = [[1.0], [0.5, 0.5], [3.0], [5.0]], [0, 0, 1, 1]
    advantages, statistics = group_advantages(rewards, groups, scale=False)
    assert [a.tolist() for a in advantages] == [[0], [0, 0], [-1], [1]]
    assert statistics.frac_reward_zero_std == 0.5 and statistics.group_reward_std == 0.5
    scaled, _ = group_advantages(rewards, groups)
    assert scaled[3].item() == pytest.approx(1, abs=1e-3)


def test_a_group_that_was_cut_is_refused():
    for compare in (group_advantages, reward_to_go):
        with pytest.raises(ValueError, match="cut"):
            compare([[1.0], [2.0], [3.0]], [0, 0, 1])


@given(EPISODES)
def test_what_was_gained_before_a_turn_does_not_matter_to_it(rewards):
    groups = [i % 2 for i in range(len(rewards))]
    whole, _ = group_advantages(rewards, groups, scale=False)
    to_go, _ = reward_to_go(rewards, groups, scale=False)
    for a, b in zip(whole, to_go, strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-5)
    moved = [[reward[0] + 10.0 * i, *reward[1:]] for i, reward in enumerate(rewards)]
    later, _ = reward_to_go(moved, groups, scale=False)
    for a, b in zip(to_go, later, strict=True):
        np.testing.assert_allclose(a[1:], b[1:], atol=1e-4)
    for turn in range(4):
        for group in (0, 1):
            there = [
                a[turn] for a, g in zip(to_go, groups, strict=True) if g == group and len(a) > turn
            ]
            assert sum(there) == pytest.approx(0, abs=1e-4)


@given(EPISODES, st.floats(0.5, 1), st.floats(0, 1))
def test_gae_is_the_sum_of_its_definition(rewards, gamma, lam):
    values = [[0.1 * (i + t) for t in range(len(r))] for i, r in enumerate(rewards)]
    advantages, targets = turn_gae(rewards, values, gamma, lam)
    for reward, value, estimates, target in zip(rewards, values, advantages, targets, strict=True):
        after = [*value[1:], 0.0]
        deltas = [r + gamma * n - v for r, n, v in zip(reward, after, value, strict=True)]
        for t in range(len(reward)):
            wanted = sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:]))
            assert estimates[t] == pytest.approx(wanted, abs=1e-4)
        np.testing.assert_allclose(target, estimates + np.array(value), atol=1e-5)


def test_gae_with_lambda_1_is_what_came_less_the_value():
    advantages, _ = turn_gae([[1.0, -0.5, 2.0]], [[0.3, 0.2, 0.1]], 1.0, 1.0)
    np.testing.assert_allclose(advantages[0], [2.5 - 0.3, 1.5 - 0.2, 2.0 - 0.1], rtol=1e-6)
