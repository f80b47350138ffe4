"""Arrays that are written to, kept or handed out twice."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny_env import NEXT, SAME, TinyVectorEnv

from mutants.registry import mutant, mutant_step


@mutant("actions stay", "actions is 0, not|actions.*is 0, not", [NEXT, SAME])
class ClipsActions(TinyVectorEnv):
    def step(self, actions):
        actions[0] = 0
        return super().step(actions)


@mutant("returns stay", "a buffer is reused")
class OneBuffer(TinyVectorEnv):
    def batch(self):
        if not hasattr(self, "buffer"):
            self.buffer = super().batch()["position"]
        batch = super().batch()
        self.buffer[:] = batch["position"]
        return {**batch, "position": self.buffer}


@mutant_step("returns stay", r"'infos'\]")
def one_dict_of_infos(self, results, actions):
    self.infos = getattr(self, "infos", {})
    self.infos.clear()
    self.infos.update(results["infos"])
    results["infos"] = self.infos


@mutant_step("returns stay", r"'rewards'\]")
def one_array_of_rewards(self, results, actions):
    self.rewards = getattr(self, "rewards", np.zeros(self.num_envs))
    self.rewards[:] = results["rewards"]
    results["rewards"] = self.rewards


@mutant("returns are the caller's", "hand out copies")
class ReturnsItsState(TinyVectorEnv):
    def batch(self):
        batch = super().batch()
        self.state = batch["position"], batch["position"].copy()
        return batch

    def step(self, actions):
        if not np.array_equal(*self.state):
            for env in self.envs:
                env.position = env.position + 0.1
        return super().step(actions)


@mutant("returns are the caller's", "or the action array", [NEXT])
class KeepsActions(TinyVectorEnv):
    actions: Any = None

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        if self.actions is not None and (self.actions < 0).any():
            rewards = rewards * 2
        self.actions = actions
        return observations, rewards, *rest
