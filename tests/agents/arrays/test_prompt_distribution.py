"""The distribution over prompts: a law of probability, whatever the view."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medseg_agents.arrays.distribution import PromptDistribution, count_maps, tool_names

from medseg_gym.prompts import TOOLS, ArrayCodec

CELLS = 3

tool_sets = st.sets(st.sampled_from(TOOLS), min_size=1).map(tool_names)


def make(tools, bins=CELLS, cells=CELLS, rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(rows, len(tools) + count_maps(tools) * cells**2, generator=generator)
    return PromptDistribution(inputs * 2, tools, bins, cells)


def all_actions(tools, cells):
    """Every action, unused entries 0."""
    places = list(itertools.product(range(cells), repeat=2))
    result = []
    for row, tool in enumerate(tools):
        if tool == "box":
            result += [(row, *a, *b) for a in places for b in places]
        elif tool.endswith("point"):
            result += [(row, *a, 0, 0) for a in places]
        else:
            result.append((row, 0, 0, 0, 0))
    return torch.tensor(result)


@given(tool_sets, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one_and_entropy_and_kl_are_exact(tools, seed):
    distribution, other = make(tools, seed=seed), make(tools, seed=seed + 100)
    actions = all_actions(tools, CELLS)

    def log_probs(which):
        one = PromptDistribution.__new__(PromptDistribution)
        one.__dict__ = dict(which.__dict__)
        one.tool_logp = which.tool_logp.expand(len(actions), -1)
        one.place_logp = which.place_logp.expand(len(actions), -1, -1)
        return one.log_prob(actions).double()

    logp, other_logp = log_probs(distribution), log_probs(other)
    assert logp.exp().sum().item() == pytest.approx(1, abs=1e-5)
    entropy = -(logp.exp() * logp).sum().item()
    assert distribution.entropy().item() == pytest.approx(entropy, abs=1e-4)
    kl = (logp.exp() * (logp - other_logp)).sum().item()
    assert distribution.kl(other).item() == pytest.approx(kl, abs=1e-4)
    best = actions[logp.argmax()]
    chosen = distribution.mode()[0]
    # The mode is the likeliest tool, then the likeliest place: with one tool, the likeliest action.
    if len(tools) == 1:
        assert chosen.tolist() == best.tolist()
    assert chosen[0].item() == distribution.tool_logp.argmax().item()


@given(tool_sets, st.sampled_from([(32, 4), (1000, 32), (33, 7), (5, 5)]), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_samples_are_actions_of_the_view_and_their_bins_are_read_as_their_cells(tools, size, seed):
    bins, cells = size
    distribution = make(tools, bins, cells, rows=16, seed=seed)
    actions = distribution.sample(torch.rand(16, distribution.num_draws))
    codec = ArrayCodec(bins, tools)
    for prompt, row in zip(codec.decode(actions.numpy()), actions.numpy(), strict=True):
        # Unused entries are 0; a box's corners come in any order.
        assert sorted(codec.encode(prompt)) == sorted(row)
    assert torch.isfinite(distribution.log_prob(actions)).all()
    # Any other bin of the same cell has the same probability.
    moved = actions.clone()
    for number, column in enumerate(distribution._columns):
        used = actions[:, 0] == distribution._owner[number]
        nudged = moved[:, column] + 1
        same = ((2 * nudged + 1) * cells // (2 * bins)) == (
            (2 * moved[:, column] + 1) * cells // (2 * bins)
        )
        moved[:, column] = torch.where(used & same, nudged, moved[:, column])
    assert torch.equal(distribution.log_prob(moved), distribution.log_prob(actions))


def test_samples_come_as_often_as_their_probability_says():
    tools = ("positive_point", "stop")
    one = make(tools)
    many = PromptDistribution(
        torch.cat([one.tool_logp, one.place_logp.flatten(1)], 1).expand(40_000, -1), tools, 3, 3
    )
    torch.manual_seed(0)
    drawn = many.sample()
    for action in all_actions(tools, CELLS):
        share = (drawn == action).all(1).double().mean().item()
        expected = one.log_prob(action[None]).exp().item()
        assert share == pytest.approx(expected, abs=0.01)


def test_the_same_draws_give_the_same_actions_whatever_else_is_in_the_batch():
    distribution = make(TOOLS, 100, 8, rows=6)
    draws = torch.from_numpy(np.random.default_rng(0).random((6, distribution.num_draws)))
    together = distribution.sample(draws)
    for row in range(6):
        alone = make(TOOLS, 100, 8, rows=6)
        alone.tool_logp, alone.place_logp = alone.tool_logp[row:][:1], alone.place_logp[row:][:1]
        assert alone.sample(draws[row : row + 1])[0].tolist() == together[row].tolist()


def test_extreme_draws_stay_inside():
    distribution = make(("negative_point", "stop"), 3, 3, rows=2)
    draws = torch.tensor([[0.0, 0.0], [1 - 1e-16, 1 - 1e-16]], dtype=torch.double)
    actions = distribution.sample(draws)
    assert (actions >= 0).all() and (actions[:, 1:3] < 3).all()
