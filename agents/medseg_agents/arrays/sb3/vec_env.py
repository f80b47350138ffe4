"""SB3's VecEnv over the native vector environment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from medseg_gym.envs.own_spaces import CopiedSpace, SeededSpace
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.errors import MedSegError


class MedSegVecEnv(VecEnv):
    """A batch of `MedSeg-v0` as SB3 takes it: one decoder call a step, not a loop over single envs.

    SB3 rejects gymnasium's vector environments; this translates. A batch of `MedSegVolume-v0` is
    translated as well, for SB3's own MultiInputPolicy. Of the observations only `target` differs:
    it is one-hot, Box(0, 1, (number of targets + 1,), float32), which is what SB3 makes of a
    Discrete before any network, and what its wrappers (VecFrameStack, VecNormalize) take, which
    know no Discrete. `infos[i]` of a finished slot has
    `terminal_observation`, `TimeLimit.truncated` and `episode` (return r, length l, seconds t, as
    SB3's Monitor gives them, and the final Dice as `dice`), beside the environment's own scalars.

    Args:
        envs: From `gym.make_vec("MedSeg-v0", ..., autoreset_mode="same_step")`.

    Raises:
        MedSegError: Another autoreset mode, with which SB3 would learn from wrong observations.
    """

    observation_space: Any = CopiedSpace()
    action_space: Any = SeededSpace()

    def __init__(self, envs: Any) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise MedSegError(
                f"SB3 expects the next episode's observation at once, but these environments have "
                f'autoreset mode {mode}; make them with autoreset_mode="same_step"'
            )
        self.envs: CoreVectorEnv = envs.unwrapped
        self.render_mode = self.envs.render_mode
        self._actions: np.ndarray | None = None
        self._returns = np.zeros(self.envs.num_envs)
        self._lengths = np.zeros(self.envs.num_envs, np.int64)
        self._began = time.perf_counter()
        shown = self.envs.single_observation_space
        self._targets = int(shown["target"].n)
        shown.spaces["target"] = spaces.Box(0, 1, (self._targets,), np.float32)
        super().__init__(self.envs.num_envs, shown, self.envs.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every slot, with the seeds and options given since the last reset."""
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        options: dict[str, Any] = {}
        if any(self._options):
            options["case"] = [given.get("case") for given in self._options]
        seeded = seeds if any(seed is not None for seed in seeds) else None
        observations, infos = self.envs.reset(seed=seeded, options=options)
        self.reset_infos = [_slot_info(infos, slot) for slot in range(self.num_envs)]
        self._returns[:] = 0
        self._lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return self._one_hot(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Take the step."""
        assert self._actions is not None
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        done = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        slot_infos: list[dict[str, Any]] = []
        for slot in range(self.num_envs):
            if not done[slot]:
                slot_infos.append(_slot_info(infos, slot))
                continue
            final = _slot_info(infos["final_info"], slot)
            final["terminal_observation"] = self._one_hot(infos["final_obs"][slot])
            final["TimeLimit.truncated"] = bool(truncated[slot] and not terminated[slot])
            final["episode"] = {
                "r": float(self._returns[slot]),
                "l": int(self._lengths[slot]),
                "t": round(time.perf_counter() - self._began, 6),
                "dice": float(final["dice"]),
            }
            slot_infos.append(final)
        self._returns[done] = 0
        self._lengths[done] = 0
        return self._one_hot(observations), rewards.astype(np.float32), done, slot_infos

    def _one_hot(self, observations: dict[str, Any]) -> dict[str, Any]:
        """Observations with their indices of targets, of any shape, one-hot along a last axis."""
        target = np.asarray(observations["target"])
        one_hot = (target[..., None] == np.arange(self._targets)).astype(np.float32)
        return {**observations, "target": one_hot}

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One frame per slot."""
        frames = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The batch's attribute, once per slot asked for; the slots share it."""
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the batch's attribute.

        Raises:
            MedSegError: Only some of the slots were named.
        """
        self._all(indices, f"set {attr_name!r}")
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call the batch's method once; its result stands for every slot.

        Raises:
            MedSegError: Only some of the slots were named.
        """
        self._all(indices, f"call {method_name!r}")
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's Monitor, whose statistics are here without it; false for all others."""
        from stable_baselines3.common.monitor import Monitor

        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _all(self, indices: VecEnvIndices, what: str) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise MedSegError(f"the slots are one batch: cannot {what} in some of them alone")


def _slot_info(infos: dict[str, Any], slot: int) -> dict[str, Any]:
    return {
        key: value[slot].item() if isinstance(value[slot], np.generic) else value[slot]
        for key, value in infos.items()
        if not key.startswith("_")
        and key not in ("final_obs", "final_info")
        and infos.get(f"_{key}", np.ones(len(value), bool))[slot]
    }
