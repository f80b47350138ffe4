"""check_vector_env names the laws that some of gymnasium's own environments break."""

from __future__ import annotations

import gymnasium as gym
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from tiny_env import TinyEnv

from medseg_gym.testing.check_vector_env import VectorEnvError, check_vector_env


def test_gymnasiums_native_cartpole_has_one_generator_for_all_slots():
    envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    with pytest.raises(VectorEnvError, match="slots share one generator") as caught:
        check_vector_env(envs)
    assert caught.value.check == "seed per slot"


def test_sync_vector_env_without_copies_reuses_its_buffer():
    with pytest.raises(VectorEnvError, match="copy=True") as caught:
        check_vector_env(SyncVectorEnv([TinyEnv] * 3, copy=False))
    assert caught.value.check == "returns stay"


def test_gymnasiums_batched_infos_cut_floats_where_the_first_slot_has_an_int():
    """FrozenLake's `prob` is the int 1 after a reset, so the others' 1/3 becomes 0."""
    envs = gym.make_vec("FrozenLake-v1", num_envs=3, vectorization_mode="sync")
    with pytest.raises(VectorEnvError, match=r"info\['prob'\] is 0, not 0.33") as caught:
        check_vector_env(envs)
    assert "VectorEnv._add_info" in caught.value.cause


def test_infos_as_a_list_are_refused():
    envs = DictInfoToList(SyncVectorEnv([TinyEnv] * 2))
    with pytest.raises(VectorEnvError, match=r"infos of reset\(\) to be a dict"):
        check_vector_env(envs)
