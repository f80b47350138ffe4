"""Advantages of turns."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medseg_agents.grpo.advantages import (
    batch_advantages,
    group_advantages,
    leave_one_out,
    normalize_then_sum,
    reward_to_go,
    turn_gae,
    weighted_rewards,
)
from medseg_agents.grpo.objective import OverLearners

from medseg_gym.errors import MedSegError

REWARD = st.floats(-1, 1, width=32)
EPISODES = st.lists(st.lists(REWARD, min_size=1, max_size=4), min_size=4, max_size=8)
IN_GROUPS = (group_advantages, leave_one_out, reward_to_go)


def test_a_group_is_compared_with_itself_alone():
    rewards, groups = [[1.0], [0.5, 0.5], [3.0], [5.0]], [0, 0, 1, 1]
    advantages, statistics = group_advantages(rewards, groups, scale="none")
    assert [a.tolist() for a in advantages] == [[0], [0, 0], [-1], [1]]
    assert statistics.frac_reward_zero_std == 0.5 and statistics.group_reward_std == 0.5
    scaled, _ = group_advantages(rewards, groups)
    assert scaled[3].item() == pytest.approx(1, abs=1e-3)
    by_batch, _ = group_advantages(rewards, groups, "batch")
    assert by_batch[3].item() == pytest.approx(1 / np.std([1, 1, 3, 5]), abs=1e-3)


def test_leaving_one_out_compares_with_the_others():
    rewards, groups = [[1.0], [0.5, 1.5], [6.0]], [0, 0, 0]
    advantages, _ = leave_one_out(rewards, groups, "none")
    assert [a.tolist() for a in advantages] == [[-3.0], [-1.5, -1.5], [4.5]]


def test_the_batch_is_normalised_as_a_whole():
    rewards, groups = [[1.0], [2.0], [3.0, 2.0]], [0, 1, 2]
    advantages, _ = batch_advantages(rewards, groups)
    flat = np.array([a[0] for a in advantages])
    assert flat.mean() == pytest.approx(0, abs=1e-6) and flat.std() == pytest.approx(1, abs=1e-3)
    assert advantages[2].tolist() == [flat[2]] * 2
    unscaled, _ = batch_advantages(rewards, groups, "none")
    assert unscaled[2][0] == pytest.approx(5 - 8 / 3)


@pytest.mark.parametrize("compare", IN_GROUPS)
def test_a_group_that_was_cut_is_refused(compare):
    with pytest.raises(ValueError, match="cut"):
        compare([[1.0], [2.0], [3.0]], [0, 0, 1])


@given(EPISODES)
def test_what_was_gained_before_a_turn_does_not_matter_to_it(rewards):
    groups = [i % 2 for i in range(len(rewards))]
    whole, _ = leave_one_out(rewards, groups, "none")
    to_go, _ = reward_to_go(rewards, groups, "none")
    for a, b in zip(whole, to_go, strict=True):
        assert a[0] == pytest.approx(b[0], abs=1e-5)
    moved = [[reward[0] + 10.0 * i, *reward[1:]] for i, reward in enumerate(rewards)]
    later, _ = reward_to_go(moved, groups, "none")
    for a, b in zip(to_go, later, strict=True):
        np.testing.assert_allclose(a[1:], b[1:], atol=1e-4)
    for turn in range(4):
        for group in (0, 1):
            there = [
                a[turn] for a, g in zip(to_go, groups, strict=True) if g == group and len(a) > turn
            ]
            if len(there) > 1:
                assert sum(there) == pytest.approx(0, abs=1e-4)


STOP, GO = 0, 1


def trajectories(p):
    """All episodes of two turns at most, with probability, rewards and scores of their choices.

    Args:
        p: Probability of going on at the first turn, and of the second turn's better choice.
    """
    first, second = p
    score = {GO: 1 - first, STOP: -first}
    yield 1 - first, [0.3], [np.array([score[STOP], 0])]
    for choice, chance, gain in ((1, second, 1.0), (0, 1 - second, -0.4)):
        scores = [np.array([score[GO], 0]), np.array([0, choice - second])]
        yield first * chance, [-0.1, gain], scores


def expected_gradient(compare, size, p=(0.35, 0.6)):
    """Exact expectation of the policy gradient over groups of some size."""
    total = np.zeros(2)
    for group in itertools.product(list(trajectories(p)), repeat=size):
        chance = np.prod([one[0] for one in group])
        advantages, _ = compare([one[1] for one in group], [0] * size, "none")
        for (_, _, scores), turns in zip(group, advantages, strict=True):
            total += chance / size * sum(a * s for a, s in zip(turns, scores, strict=True))
    return total


@pytest.mark.parametrize("size", [2, 3, 4])
def test_leaving_one_out_is_unbiased_and_a_mean_that_contains_the_episode_is_not(size):
    def value(p):
        return sum(chance * sum(rewards) for chance, rewards, _ in trajectories(p))

    p = np.array([0.35, 0.6])
    # By logits: a step of the probability is p (1 - p).
    true = [
        (value(p + h) - value(p - h)) / 2e-5 * p[i] * (1 - p[i])
        for i, h in enumerate(1e-5 * np.eye(2))
    ]
    for compare in (reward_to_go, leave_one_out):
        np.testing.assert_allclose(expected_gradient(compare, size), true, atol=1e-6)
    shrunk = expected_gradient(group_advantages, size)
    np.testing.assert_allclose(shrunk, np.array(true) * (size - 1) / size, atol=1e-6)


def test_a_turn_that_one_episode_reached_is_compared_with_having_stopped():
    advantages, _ = reward_to_go([[0.5, -0.01, -0.02], [0.5]], [0, 0], "none")
    np.testing.assert_allclose(advantages[0][1:], [-0.03, -0.02], atol=1e-6)


class Halves(OverLearners):
    """Two learners that hold the halves of some numbers; each sees the other's sums."""

    def __init__(self, other):
        super().__init__()
        self.count, self._other = 2, list(other)

    def sum(self, values):
        return [a + b for a, b in zip(values, self._other.pop(0), strict=True)]


def test_spreads_of_the_batch_go_over_all_learners():
    returns = np.array([1.0, 4.0, 2.0, 9.0])
    mean, spread = returns.mean(), returns.std()
    others = [[2, returns[2:].sum()], [((returns[2:] - mean) ** 2).sum()]]
    statistics = Halves(others).mean_and_std(returns[:2])
    assert statistics == pytest.approx((mean, spread))
    own, _ = batch_advantages([[1.0], [4.0]], [0, 1], "batch", Halves(others))
    whole, _ = batch_advantages([[r] for r in returns], [0, 1, 2, 3])
    np.testing.assert_allclose(own, whole[:2], rtol=1e-6)


TERMS = [
    [{"dice_gain": 0.5, "cost": 0.01}, {"dice_gain": 0.2, "cost": 0.0}],
    [{"dice_gain": 0.1, "cost": 0.02}],
    [{"dice_gain": 0.9, "cost": 0.01}],
    [{"dice_gain": 0.3, "cost": 0.05}],
]


def test_terms_are_weighed():
    rewards = weighted_rewards(TERMS, {"dice_gain": 2.0, "cost": -1.0})
    assert rewards[0] == pytest.approx([0.99, 0.4])
    with pytest.raises(MedSegError, match=r"no term 'dice_gian' \(did you mean 'dice_gain'"):
        weighted_rewards(TERMS, {"dice_gian": 1.0})


@pytest.mark.parametrize("compare", [group_advantages, reward_to_go])
def test_a_term_of_a_large_spread_does_not_drown_another(compare):
    weights, groups = {"dice_gain": 1.0, "cost": -1.0}, [0, 0, 1, 1]
    compared, _ = normalize_then_sum(TERMS, weights, groups, compare, OverLearners())
    # Whatever unit a term has, the advantages stay (but for what is added to a spread).
    larger = [[{**t, "dice_gain": 100 * t["dice_gain"]} for t in one] for one in TERMS]
    again, _ = normalize_then_sum(larger, weights, groups, compare, OverLearners())
    for a, b in zip(compared, again, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2)
    assert np.std([a[0] for a in compared]) == pytest.approx(1, abs=1e-3)


def test_gdpo_is_the_formula_that_trl_computes():
    # TRL 1.16, _generate_and_score_completions, with spreads of the population instead of its
    # sample's: by term (r - mean) / std in the group, weighed, summed, by the batch's spread.
    returns = np.array([[sum(t[n] for t in one) for n in ("dice_gain", "cost")] for one in TERMS])
    grouped = returns.reshape(2, 2, 2)
    spread = grouped.std(1, keepdims=True) + 1e-4
    summed = (((grouped - grouped.mean(1, keepdims=True)) / spread) @ [1.0, -2.0]).ravel()
    wanted = (summed - summed.mean()) / (summed.std() + 1e-4)
    weights = {"dice_gain": 1.0, "cost": -2.0}
    advantages, _ = normalize_then_sum(
        TERMS, weights, [0, 0, 1, 1], group_advantages, OverLearners()
    )
    np.testing.assert_allclose([a[0] for a in advantages], wanted, rtol=1e-5)


@given(EPISODES, st.floats(0.5, 1), st.floats(0, 1), st.booleans())
def test_gae_is_the_sum_of_its_definition(rewards, gamma, lam, truncated):
    values = [[0.1 * (i + t) for t in range(len(r))] for i, r in enumerate(rewards)]
    beyond = [0.7 * i * truncated for i in range(len(rewards))]
    advantages, targets = turn_gae(rewards, values, gamma, lam, beyond if truncated else None)
    for reward, value, estimates, target, last in zip(
        rewards, values, advantages, targets, beyond, strict=True
    ):
        after = [*value[1:], last]
        deltas = [r + gamma * n - v for r, n, v in zip(reward, after, value, strict=True)]
        for t in range(len(reward)):
            wanted = sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:]))
            assert estimates[t] == pytest.approx(wanted, abs=1e-4)
        np.testing.assert_allclose(target, estimates + np.array(value), atol=1e-5)


def test_gae_with_lambda_1_is_what_came_less_the_value():
    advantages, _ = turn_gae([[1.0, -0.5, 2.0]], [[0.3, 0.2, 0.1]], 1.0, 1.0)
    np.testing.assert_allclose(advantages[0], [2.5 - 0.3, 1.5 - 0.2, 2.0 - 0.1], rtol=1e-6)


def test_an_exact_critic_finds_no_merit_in_being_truncated():
    # A reward of 1 a turn for ever, discounted by a half: every state is worth 2.
    advantages, targets = turn_gae([[1.0, 1.0]], [[2.0, 2.0]], 0.5, 0.95, [2.0])
    np.testing.assert_allclose(advantages[0], [0, 0], atol=1e-6)
    np.testing.assert_allclose(targets[0], [2, 2], atol=1e-6)
