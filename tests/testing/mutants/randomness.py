"""Global generators, lost seeds, and state that a reset leaves behind."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import ClassVar

import numpy as np
from tiny_env import LIMIT, NEXT, SAME, TinyEnv, TinyVectorEnv

from mutants.registry import mutant, mutant_step


@mutant("global generators", "changed: numpy.random")
class GlobalNumpy(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        np.random.uniform()
        return super().reset(seed=seed, options=options)


@mutant_step("global generators", r"changed: random\n")
def global_random(self, results, actions):
    results["rewards"][0] += random.random()


@mutant("global generators", "whatever the global seeds")
class SeededFromGlobalState(TinyVectorEnv):
    def seeds(self, seed):
        offset = int(np.random.get_state()[1][0])
        return [s if s is None else s + offset for s in super().seeds(seed)]


@mutant_step("repeat", "identical")
def unseeded_noise(self, results, actions):
    noise = np.random.default_rng().normal(size=self.num_envs)
    results["rewards"] = np.where(results["rewards"] == 0, 0, noise)


@mutant_step("repeat", "a clock in infos", [NEXT])
def clock_in_infos(self, results, actions):
    results["infos"]["time"] = np.full(self.num_envs, time.perf_counter_ns())
    results["infos"]["_time"] = np.ones(self.num_envs, bool)


@mutant("reset forgets", "in the middle of other episodes")
class CountsWithinEpisode(TinyVectorEnv):
    """Reports the number of steps since the last reset of all slots in the one after it."""

    def reset(self, *, seed=None, options=None):
        whole = not options
        observations, infos = super().reset(seed=seed, options=options)
        if whole:
            infos["before"] = np.full(self.num_envs, min(3, getattr(self, "taken", 3)))
            infos["_before"] = np.ones(self.num_envs, bool)
            self.taken = 0
        return observations, infos

    def step(self, actions):
        self.taken += 1
        return super().step(actions)


@mutant("reset forgets", "leaves a step counter, a done flag", [NEXT])
class StaleDoneFlags(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        ended = self.ended
        observations, infos = super().reset(seed=seed, options=options)
        self.ended = ended
        return observations, infos


class _CountingOnEnv(TinyEnv):
    def reset(self, *, seed=None, options=None):
        steps = getattr(self, "steps", 0)
        results = super().reset(seed=seed, options=options)
        self.steps = steps % LIMIT
        return results


@mutant("reset forgets", "leaves a step counter")
class CountsOn(TinyVectorEnv):
    make_env = _CountingOnEnv


@mutant("repeat", "or reset.. leaves a step counter", [NEXT], make_vector=None)
class CountsOnAlone(TinyVectorEnv):
    make_env = _CountingOnEnv
    spec = None


@mutant("fresh partner", "newly built environment")
class CountsInstances(TinyVectorEnv):
    made: ClassVar[Counter[str]] = Counter()

    def __init__(self, num_envs, mode):
        super().__init__(num_envs, mode)
        self.made["all"] += 1
        self.number = self.made["all"]

    def seeds(self, seed):
        return [s if s is None else s + 10000 * self.number for s in super().seeds(seed)]


@mutant("seed per slot", r"reset\(seed=123\) to equal reset\(seed=\[123, 124, 125\]\)")
class SameSeedInEverySlot(TinyVectorEnv):
    def seeds(self, seed):
        return [seed] * self.num_envs if isinstance(seed, int) else super().seeds(seed)


@mutant("seed per slot", r"reset\(seed=\[123, 124, 125\]\) to be accepted")
class NoSeedLists(TinyVectorEnv):
    def seeds(self, seed):
        if isinstance(seed, list):
            raise TypeError("seed must be an int")
        return super().seeds(seed)


@mutant("generator goes on", "makes a new generator", [NEXT, SAME])
class NewGeneratorAtReset(TinyVectorEnv):
    def reset(self, *, seed=None, options=None):
        if seed is None:
            seed = int(np.random.default_rng().integers(1 << 30))
        return super().reset(seed=seed, options=options)


@mutant("generator goes on", "the seed is kept")
class AppliesSeedAgain(TinyVectorEnv):
    kept = 0

    def reset(self, *, seed=None, options=None):
        if seed is None and not options:
            seed = self.kept
        elif isinstance(seed, int):
            self.kept = seed
        return super().reset(seed=seed, options=options)


class _ForgetfulEnv(TinyEnv):
    first: int | None = None
    manual = False

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.first = seed
        again = seed is None and self.first is not None and not self.manual
        return super().reset(seed=self.first if again else seed)


@mutant("generator goes on", "episodes after the first ones", [NEXT, SAME])
class AutoresetReplaysFirstEpisode(TinyVectorEnv):
    make_env = _ForgetfulEnv

    def reset(self, *, seed=None, options=None):
        for env in self.envs:
            env.manual = True
        results = super().reset(seed=seed, options=options)
        for env in self.envs:
            env.manual = False
        return results
