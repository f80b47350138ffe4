"""check_vector_env leaves things as it found them, closes what it opens and refuses wrong use."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorEnv
from tiny_env import SAME, TinyEnv, TinyVectorEnv

from medseg_gym.testing.check_vector_env import VectorEnvError, check_vector_env


def test_the_environment_and_the_global_generators_are_left_as_found():
    envs = TinyVectorEnv(2)
    envs.action_space.seed(5)
    expected = copy.deepcopy(envs.action_space).sample()
    np.random.seed(3)
    random.seed(3)
    states = np.random.get_state()[1].copy(), random.getstate()
    check_vector_env(envs, make_vector=TinyVectorEnv, make_single=TinyEnv)
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(envs.action_space.sample(), expected)
    assert not envs.closed
    envs.step(expected)  # freshly reset, so no slot has ended


def test_every_partner_is_closed_also_when_a_check_fails():
    opened: list[Any] = []

    class Counted(TinyVectorEnv):
        def step(self, actions):
            observations, rewards, *rest = super().step(actions)
            return observations, rewards / self.num_envs, *rest

    def make_vector(n: int) -> VectorEnv:
        opened.append(Counted(n))
        return opened[-1]

    class Single(TinyEnv):
        def __init__(self):
            self.closed = False
            opened.append(self)

        def close(self):
            self.closed = True

    with pytest.raises(VectorEnvError):
        check_vector_env(Counted(3), make_vector=make_vector, make_single=Single)
    check_vector_env(TinyVectorEnv(2), make_single=Single)
    assert len(opened) > 3 and all(env.closed for env in opened)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (TinyEnv, TypeError, "use gymnasium.utils.env_checker.check_env"),
        (lambda: 3, TypeError, "wants a VectorEnv, not int"),
    ],
)
def test_something_else_than_a_vector_environment_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        check_vector_env(make())


def test_wrong_use_is_refused():
    closed = TinyVectorEnv(2)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        check_vector_env(closed)
    with pytest.raises(ValueError, match="atol must be >= 0"):
        check_vector_env(TinyVectorEnv(2), atol=-1)
    with pytest.raises(ValueError, match="2 slots instead of 3"):
        check_vector_env(TinyVectorEnv(3), make_vector=lambda n: TinyVectorEnv(2))
    with pytest.raises(ValueError, match="SAME_STEP"):
        check_vector_env(TinyVectorEnv(3), make_vector=lambda n: TinyVectorEnv(n, SAME))
