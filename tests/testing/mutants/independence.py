"""Slots that know of each other, of their number or of a single environment's rewards."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from tiny_env import DISABLED, NEXT, SAME, TinyVectorEnv

from mutants.registry import mutant, mutant_step


@mutant_step("permutation", "reverse the results")
def reward_by_slot_number(self, results, actions):
    factors = 1 + np.arange(self.num_envs) / 10
    results["rewards"] = results["rewards"] * factors


@mutant_step("permutation", "another slot's state", [NEXT])
def neighbours_image(self, results, actions):
    rolled = np.roll(results["observations"]["image"], 1, axis=0)
    results["observations"]["image"] = rolled


@mutant_step("reset mask", "or a slot reads another's state", [DISABLED])
@mutant_step("neighbours", r"slot 0 to play the same when .* all others change", [NEXT, SAME])
def reward_relative_to_best(self, results, actions):
    best = results["observations"]["position"].max()
    results["rewards"] = np.where(results["rewards"] == 0, 0, results["rewards"] - best)


@mutant_step("num_envs", "the same episodes with num_envs=1 as with num_envs=3")
def reward_divided_by_batch(self, results, actions):
    results["rewards"] = results["rewards"] / self.num_envs


@mutant_step("single against vector", "reward is 0.2, not 0.1|reward is [24].2, not [12].1")
def doubled_reward(self, results, actions):
    results["rewards"] *= 2


@mutant_step("single against vector", "info has keys", [NEXT, SAME])
def mask_that_hides_a_slot(self, results, actions):
    if "_wind" in results["infos"]:
        results["infos"]["_wind"][:] = False


@mutant("single against vector", "single_action_space equal to", [NEXT])
class OtherActions(TinyVectorEnv):
    single_action_space = spaces.Discrete(2)
