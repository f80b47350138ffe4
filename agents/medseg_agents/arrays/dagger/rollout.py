"""Play with network and annotator by turns, and keep every state with the annotator's label."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
import torch

from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.dagger.labels import make_labels
from medseg_agents.arrays.dagger.learner import Learner
from medseg_agents.arrays.dagger.state_buffer import LabelledState, StateBuffer
from medseg_gym import annotators
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.policy import ask, give_engine


class Rollout:
    """Episodes that go on from one round of gradient steps to the next.

    The annotator is asked once a step for all slots, also where the network's action is played.

    Args:
        config: Of the run.
        envs: With autoreset "same_step".
        learner: Whose network plays.
        buffer: Gets the states of every episode that ends.
        seed: Of cases, of the annotator and of the draws.
    """

    def __init__(
        self,
        config: DaggerConfig,
        envs: CoreVectorEnv,
        learner: Learner,
        buffer: StateBuffer,
        seed: int,
    ) -> None:
        self.config, self.envs, self.learner, self.buffer = config, envs, learner, buffer
        self.annotator = annotators.make(config.annotator, envs.codec)
        give_engine(self.annotator, envs)
        self.generator = np.random.default_rng([seed, 0xDA66E2])
        self.episodes: deque[dict[str, float]] = deque(maxlen=256)
        self.seconds_asking = 0.0
        self._states: list[list[LabelledState]] = [[] for _ in range(envs.num_envs)]
        self._rewards: list[list[float]] = [[] for _ in range(envs.num_envs)]
        self._seen, _ = envs.reset(seed=seed)
        self._begin(range(envs.num_envs))

    def play(self, steps: int, beta: float) -> None:
        """Take steps in every slot.

        Args:
            steps: How many.
            beta: Share of them in which the annotator's action is played.
        """
        self.seconds_asking = 0.0
        for _ in range(steps):
            self._step(beta)

    def metrics(self) -> dict[str, float]:
        """Means over the newest episodes."""
        names = self.episodes[0].keys() if self.episodes else ()
        return {name: float(np.mean([one[name] for one in self.episodes])) for name in names}

    def _step(self, beta: float) -> None:
        envs, seen = self.envs, self._seen
        slots = range(envs.num_envs)
        episodes = [envs.engine.episode(slot) for slot in slots]
        began = time.perf_counter()
        advised = np.asarray(ask(self.annotator, seen, episodes))
        labels = make_labels(
            advised, episodes, envs.codec, self.learner.network.cells, self.config.click_sharpness
        )
        self.seconds_asking += time.perf_counter() - began
        for slot in slots:
            self._states[slot].append(
                LabelledState(
                    episodes[slot].case.key,
                    {name: values[slot].copy() for name, values in seen.items()},
                    labels.actions[slot],
                    labels.clicks[slot],
                    labels.truth[slot],
                )
            )
        distribution = self.learner.infer(seen)
        draws = self.generator.random((envs.num_envs, distribution.num_draws))
        own = distribution.sample(torch.from_numpy(draws).to(self.learner.device)).cpu().numpy()
        follows = self.generator.random(envs.num_envs) < beta
        actions = np.where(follows[:, None], advised, own)
        self._seen, rewards, terminated, truncated, infos = envs.step(actions)
        for slot in slots:
            self._rewards[slot].append(float(rewards[slot]))
        ended = np.flatnonzero(terminated | truncated).tolist()
        for slot in ended:
            self._keep(slot, float(infos["final_info"]["dice"][slot]))
        self._begin(ended)

    def _keep(self, slot: int, dice: float) -> None:
        rewards = np.array(self._rewards[slot])
        left = rewards[::-1].cumsum()[::-1]
        for state, value in zip(self._states[slot], left, strict=True):
            self.buffer.add(state, float(value))
        turns = float(len(rewards))
        self.episodes.append({"return": float(left[0]), "dice": dice, "turns": turns})
        self._states[slot], self._rewards[slot] = [], []

    def _begin(self, slots: Any) -> None:
        seeds = self.generator.integers(2**63, size=len(slots))
        self.annotator.reset(list(slots), [np.random.default_rng(seed) for seed in seeds])
