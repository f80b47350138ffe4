"""A tiny environment, single and in batches, that keeps every law; and how the tests check it."""

from __future__ import annotations

import string
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from medseg_gym.testing.check_vector_env import check_vector_env

NEXT, SAME, DISABLED = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED
MODES = [NEXT, SAME, DISABLED]
LIMIT = 6


class TinyEnv(gym.Env):
    """A drunkard's walk: ends beyond 1, or after LIMIT steps; draws a wind at every step."""

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(-100, 100, (2,), np.float32),
            "image": spaces.Box(0, 255, (2, 2, 1), np.uint8),
            "colour": spaces.Discrete(3),
            "pair": spaces.Tuple([spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(2)]),
            "words": spaces.Text(8, charset=string.ascii_letters),
        }
    )
    action_space = spaces.Discrete(3)

    def _observe(self) -> dict[str, Any]:
        return {
            "position": self.position.astype(np.float32),
            "image": self.image.copy(),
            "colour": self.colour,
            "pair": (np.array([self.colour, 3]), np.array([0, self.steps % 2], np.int8)),
            "words": "abc"[self.colour] * min(8, self.steps + 1),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.5, 0.5, 2)
        self.image = self.np_random.integers(0, 256, (2, 2, 1), dtype=np.uint8)
        self.colour = int(self.np_random.integers(3))
        self.steps = 0
        return self._observe(), {"colour": self.colour}

    def step(self, action):
        assert self.action_space.contains(action)
        wind = float(self.np_random.normal(scale=0.2))
        self.position = self.position + 0.2 * (action - 1) + wind
        self.steps += 1
        terminated = bool(self.position[0] > 1)
        info = {"wind": wind, "words": "w" * self.steps, "nested": {"steps": self.steps}}
        if terminated:
            info["fell"] = True
        truncated = self.steps == LIMIT
        return self._observe(), float(action) + 0.1, terminated, truncated, info


class TinyVectorEnv(VectorEnv):
    """TinyEnv in batches, all three modes, keeping every law; the mutants below break one each."""

    single_observation_space = TinyEnv.observation_space
    single_action_space = TinyEnv.action_space
    spec = EnvSpec("Tiny-v0", max_episode_steps=LIMIT)
    make_env: Any = TinyEnv

    def __init__(self, num_envs: int = 1, autoreset_mode: AutoresetMode = NEXT, **kwargs: Any):
        self.num_envs = num_envs
        self.mode = autoreset_mode
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.envs = [self.make_env() for _ in range(num_envs)]
        self.ended = np.zeros(num_envs, bool)
        self.last: list[Any] = [None] * num_envs

    def batch(self) -> Any:
        empty = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, self.last, empty)

    def mask(self, options: dict[str, Any] | None) -> np.ndarray:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if mask.shape != (self.num_envs,):
            raise ValueError("reset_mask")
        return mask

    def seeds(self, seed: Any) -> list[Any]:
        if isinstance(seed, list):
            if len(seed) != self.num_envs:
                raise ValueError("seed")
            return seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self, *, seed=None, options=None):
        mask, seeds = self.mask(options), self.seeds(seed)
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask):
            self.last[i], info = self.envs[i].reset(seed=seeds[i])
            infos = self._add_info(infos, info, i)
        self.ended = self.ended & ~mask
        return self.batch(), infos

    def step(self, actions):
        n = self.num_envs
        rewards, terminations, truncations = np.zeros(n), np.zeros(n, bool), np.zeros(n, bool)
        infos: dict[str, Any] = {}
        for i, action in enumerate(iterate(self.action_space, actions)):
            if self.ended[i] and self.mode == NEXT:
                self.last[i], info = self.envs[i].reset()
            else:
                assert not self.ended[i], "reset it first"
                self.last[i], rewards[i], terminations[i], truncations[i], info = self.envs[i].step(
                    action
                )
                if self.mode == SAME and (terminations[i] or truncations[i]):
                    final = {"final_obs": self.last[i], "final_info": info}
                    infos = self._add_info(infos, final, i)
                    self.last[i], info = self.envs[i].reset()
            infos = self._add_info(infos, info, i)
        self.ended = (terminations | truncations) & (self.mode != SAME)
        return self.batch(), rewards, terminations, truncations, infos


def check(cls: Any, mode: AutoresetMode = NEXT, n: int = 3, **arguments: Any) -> Any:
    arguments.setdefault("make_vector", lambda num_envs: cls(num_envs, mode))
    arguments.setdefault("make_single", TinyEnv)
    return check_vector_env(cls(n, mode), **arguments)
