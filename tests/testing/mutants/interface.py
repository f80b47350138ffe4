"""Wrong spaces, wrong forms of results and infos."""

from __future__ import annotations

import numpy as np
from gymnasium.vector.utils import batch_space
from tiny_env import NEXT, SAME, TinyVectorEnv

from mutants.registry import mutant, mutant_step


@mutant("spaces", r"observation_space == batch_space\(single_observation_space, 3\)")
class WrongBatchSpace(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.observation_space = batch_space(self.single_observation_space, num_envs + 1)


@mutant("spaces", "action_space to be a gymnasium Space", [NEXT])
class NoActionSpace(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.action_space = None


@mutant("autoreset mode", "AutoresetMode")
class ModeAsText(TinyVectorEnv):
    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.metadata = {"autoreset_mode": mode.value}


@mutant("reset and step", r"observations\['position'\] has shape \(3, 2\) and dtype float64")
class DoubleObservation(TinyVectorEnv):
    def batch(self):
        batch = super().batch()
        return {**batch, "position": batch["position"].astype(np.float64)}


@mutant_step("reset and step", "lies outside", [NEXT])
def observation_out_of_bounds(self, results, actions):
    results["observations"]["position"][1] = 101


@mutant_step("reset and step", r"observations has \[.*\], not a dict with the keys", [NEXT])
def observation_key_missing(self, results, actions):
    del results["observations"]["image"]


@mutant_step("reset and step", "rewards to be a float array", [NEXT])
def integer_rewards(self, results, actions):
    results["rewards"] = results["rewards"].astype(int)


@mutant_step("reset and step", r"slot 2\).*\n.*finite", [NEXT])
def infinite_reward(self, results, actions):
    results["rewards"][2] = np.inf


@mutant_step("reset and step", r"truncations to be a bool array of shape \(3,\)")
def integer_flags(self, results, actions):
    results["truncations"] = results["truncations"].astype(np.int8)


@mutant_step("reset and step", "terminations to be a bool array.*\n.*a list", [NEXT])
def flags_in_a_list(self, results, actions):
    results["terminations"] = results["terminations"].tolist()


@mutant_step("reset and step", "KeyError: 'nothing'", [NEXT])
def step_raises(self, results, actions):
    results["nothing"]


@mutant_step("infos", "a mask '_score' beside", [NEXT, SAME])
def info_without_mask(self, results, actions):
    results["infos"]["score"] = np.zeros(self.num_envs)


@mutant_step("infos", r"\['_wind'\] to be a bool mask of shape \(3,\)", [NEXT, SAME])
def integer_mask(self, results, actions):
    if "_wind" in results["infos"]:
        results["infos"]["_wind"] = results["infos"]["_wind"].astype(int)


@mutant_step("infos", r"\['wind'\] to be an array of length 3", [NEXT])
def info_of_ended_slots_only(self, results, actions):
    if "wind" in results["infos"]:
        results["infos"]["wind"] = results["infos"]["wind"][1:]


@mutant_step("infos", r"\['nested'\]\['_steps'\] to be a bool mask", [NEXT])
def nested_mask_too_short(self, results, actions):
    nested = results["infos"].get("nested", {})
    if "_steps" in nested:
        nested["_steps"] = nested["_steps"][1:]
