"""Rewards of users: finite numbers, or an error that names reward, case and step."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case
from medseg_gym.episodes.rewards import (
    DiceGain,
    IbisAgent,
    MedSamAgent,
    RewardValue,
    make,
    score_episode,
)
from medseg_gym.errors import MedSegError, RewardError
from medseg_gym.prompts import Stop

NOT_NUMBERS = [
    math.nan,
    math.inf,
    -math.inf,
    None,
    "1.0",
    np.array([0.5]),
    np.array([0.5, 0.5]),
    torch.tensor([0.5, 0.5]),
    torch.tensor(math.nan),
    np.float32("inf"),
    [1.0],
    1j,
    10**400,
]
NUMBERS = [1, 0.5, True, np.float32(0.5), np.array(0.5), torch.tensor(0.5)]


def make_case():
    image = np.zeros((32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[4:12, 4:12] = True
    return Case("one-case", image, mask, "square", synthetic=True)


def step(reward):
    env = gym.make(
        "MedSeg-v0",
        cases=[make_case()],
        split=None,
        backbone="ellipse",
        image_size=32,
        reward=reward,
    )
    env.reset(seed=0)
    return env.step(np.array([0, 100, 100, 400, 400]))


def odd(value=0.0, term=0.0):
    def my_reward(episode):
        return RewardValue(value, {"part": term})

    return my_reward


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
def test_a_value_or_term_that_is_no_finite_number_raises(value):
    with pytest.raises(RewardError, match=r"'my_reward' on case 'one-case', step 1: value is"):
        step(odd(value=value))
    with pytest.raises(RewardError, match=r"'my_reward' on case 'one-case', step 1: term 'part'"):
        step(odd(term=value))


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_any_scalar_is_taken_as_a_float(value):
    _, reward, *_, info = step(odd(value, value))
    assert type(reward) is float and reward == float(value)
    assert type(info["part"]) is float


@pytest.mark.parametrize("result", [None, math.nan, (1.0,), (1.0, 2.0), (1.0, None), "ab"])
def test_something_else_than_a_reward_value_raises(result):
    with pytest.raises(RewardError, match=r"'my_own' on case 'one-case'"):

        def my_own(episode):
            return result

        step(my_own)


def test_the_part_of_a_mixture_is_named_and_zero_does_not_hide_it():
    with pytest.raises(RewardError, match="'my_reward'"):
        step(DiceGain() + 0.0 * (DiceGain() + odd(value=math.nan)))
    with pytest.raises(RewardError, match=r"'my_reward'.*term 'part'"):
        step(DiceGain() + odd(term=math.inf))


def test_a_sum_that_overflows_raises():
    with pytest.raises(RewardError, match=r"'Mixture'.*value is inf"):
        step(1e308 * (DiceGain() * 0.0 + odd(value=1e10)))


def test_stored_episodes_are_valued_likewise():
    truth = make_case().mask
    with pytest.raises(RewardError, match="stored episode"):
        score_episode(odd(math.nan), [], truth, [Stop()])


@pytest.mark.parametrize(
    "build",
    [
        lambda: DiceGain(step_penalty=math.nan),
        lambda: make("dice_gain?step_penalty=1e999"),
        lambda: make("dice_gain", step_penalty=-math.inf),
        lambda: IbisAgent(tiers=(0.5, math.nan)),
        lambda: MedSamAgent(turn_cost=math.inf),
        lambda: DiceGain() * math.nan,
    ],
)
def test_settings_that_are_not_finite_are_refused_at_once(build):
    with pytest.raises(MedSegError, match="finite"):
        build()
