"""Another autoreset than the one declared, lost last observations, wrong time limits."""

from __future__ import annotations

import copy

import numpy as np
from tiny_env import DISABLED, LIMIT, MODES, NEXT, SAME, TinyEnv, TinyVectorEnv

from mutants.registry import mutant, mutant_step, stepping


class _Declares(TinyVectorEnv):
    """Behaves as one mode and declares another."""

    behaves = SAME

    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.mode = self.behaves


@mutant("autoreset step", "declare SAME_STEP", [NEXT])
class SameStepDeclaredAsNextStep(_Declares):
    pass


@mutant("autoreset step", "action in the step after an episode's end to be ignored", [NEXT])
class SameStepDeclaredAsNextStepWithoutRewards(_Declares):
    step = stepping(lambda self, results, actions: results["rewards"].fill(0))


@mutant("autoreset step", "no final_obs under AutoresetMode.DISABLED", [DISABLED])
class SameStepDeclaredAsDisabled(_Declares):
    pass


@mutant("autoreset step", "declare NEXT_STEP", [SAME])
class NextStepDeclaredAsSameStep(_Declares):
    behaves = NEXT


@mutant_step("autoreset step", r"infos\['final_info'\] for exactly the slots that ended", [SAME])
def no_final_info(self, results, actions):
    results["infos"].pop("final_info", None)
    results["infos"].pop("_final_info", None)


@mutant_step("autoreset step", r"infos\['final_obs'\] for exactly.*\n.*mask \[ True", [SAME])
def final_mask_everywhere(self, results, actions):
    if "_final_obs" in results["infos"]:
        results["infos"]["_final_obs"][:] = True


@mutant_step("autoreset step", r"final_obs\[\d\] in single_observation_space", [SAME])
def final_obs_of_another_dtype(self, results, actions):
    for final in results["infos"].get("final_obs", []):
        if final is not None:
            final["position"] = final["position"].astype(np.float64)


class _LateEnv(TinyEnv):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.steps == LIMIT + 2, info


@mutant("time limit", f"truncation at step {LIMIT}")
class LimitIgnored(TinyVectorEnv):
    make_env = _LateEnv


class _HastyEnv(TinyEnv):
    """Counts the reset of every episode but the first as a step."""

    later = False

    def reset(self, *, seed=None, options=None):
        self.later = seed is None
        return super().reset(seed=seed, options=options)

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, self.steps + self.later == LIMIT, info


@mutant("time limit", "step counter is not cleared by the automatic reset")
class LaterEpisodesAreShort(TinyVectorEnv):
    make_env = _HastyEnv


def final_obs_after_reset(self, results, actions):
    for i in np.flatnonzero(results["infos"].get("_final_obs", False)):
        results["infos"]["final_obs"][i] = copy.deepcopy(self.last[i])


FinalIsNext = type("FinalIsNext", (TinyVectorEnv,), {"step": stepping(final_obs_after_reset)})
mutant("new episode", "in all .* ends it equals the new episode's first", [SAME])(FinalIsNext)
mutant("new episode", "taken after the reset", [SAME], make_single=None)(FinalIsNext)


@mutant_step("new episode", "last observation of the ended episode", [SAME])
def final_image_of_next_episode(self, results, actions):
    for i in np.flatnonzero(results["infos"].get("_final_obs", False)):
        results["infos"]["final_obs"][i]["image"] = self.last[i]["image"].copy()


class _LastPictureEnv(TinyEnv):
    """Draws the first observation of a later episode before the image is replaced."""

    image = np.zeros((2, 2, 1), np.uint8)

    def reset(self, *, seed=None, options=None):
        old = self.image
        observation, info = super().reset(seed=seed, options=options)
        stale = seed is None and self.steps_before > 1
        return ({**observation, "image": old.copy()} if stale else observation), info

    steps_before = 0

    def step(self, action):
        results = super().step(action)
        self.steps_before = self.steps
        return results


@mutant("new episode", "first one around an episode's end", MODES)
class StaleFirstPicture(TinyVectorEnv):
    make_env = _LastPictureEnv


@mutant("new episode", "to start as reset", [NEXT], make_single=None)
class AutoresetDrawsFromElsewhere(TinyVectorEnv):
    def step(self, actions):
        for i in np.flatnonzero(self.ended):
            self.envs[i].np_random.normal()
        return super().step(actions)
