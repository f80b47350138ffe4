"""Recorders: wrappers that write every step of an environment into a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorWrapper

from medseg_gym.envs.core import EnvAttributes, EnvCore
from medseg_gym.envs.volumes.core import VolumeCore
from medseg_gym.policy import Policy
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.recording.step_log import KeyOf, Sink, StepLog

AnyEnv = TypeVar("AnyEnv", gym.Env, VectorEnv)


class _Recording(Generic[AnyEnv]):
    """Base of both recorders: making and closing. Stands before the wrapper's class."""

    def __init__(
        self,
        env: AnyEnv,
        store: str | Path | Sink,
        seed: int | None = None,
        policy: str | Policy = "",
        key_of: KeyOf | None = None,
        fsync: bool = False,
    ) -> None:
        super().__init__(env)  # type: ignore[call-arg]
        self.log = StepLog(_core_of(env), store, seed, policy, key_of, fsync)

    def close(self, **kwargs: Any) -> None:
        """Close the environment and, unless it was given, the writer."""
        self.log.close()
        super().close(**kwargs)  # type: ignore[misc]


class Recorder(_Recording[gym.Env], gym.Wrapper):
    """Records a single `MedSeg-v0` or `MedSegVolume-v0`.

    Put it outside of wrappers that change rewards or cut episodes off, if their doing is to be
    recorded. Recording changes nothing that the environment returns.

    Args:
        env: `gym.make("MedSeg-v0", ...)`.
        store: Folder of the store, or a writer (which then stays open).
        seed: Part of the episodes' keys. None draws one, so that keys of several recorders never
            meet; give one to find the episodes again. It seeds nothing.
        policy: Who acts: a name, or the Policy itself. A policy that has a method
            `accepts(episode)` judges each finished episode; the verdict is kept as `accepted`.
        key_of: Gives the key of an episode when it begins, or None to leave it out. By default
            the rollout index counts the episodes with this case and seed.
        fsync: See `TrajectoryWriter`.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a running one is kept as unfinished."""
        result = self.env.reset(seed=seed, options=options)
        self.log.leave([0])
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one action and record it."""
        before = self.log.episodes()
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.log.record(before, [reward], [terminated], [truncated], lambda slot: info)
        return observation, reward, terminated, truncated, info


class VectorRecorder(_Recording[VectorEnv], EnvAttributes, VectorWrapper):
    """Records a vector `MedSeg-v0` or `MedSegVolume-v0` in any autoreset mode.

    An episode that is forked (`CoreVectorEnv.fork`) is recorded as one of its own, from its first
    step, once it takes a step after the fork.

    Args:
        env: `gym.make_vec("MedSeg-v0", ...)` or `medseg_gym.policy.make_envs(...)`.
        store: See `Recorder`, as for the others.
        seed: Likewise.
        policy: Likewise.
        key_of: Likewise; called in the order of slots.
        fsync: Likewise.
    """

    @property
    def core(self) -> Any:  # type: ignore[override]
        """Of the environment, so that `play_cases` takes a recorder as well.

        Any, because code over a recorder knows whether it plays images or volumes.
        """
        return self.log.core

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes; running ones that are replaced are kept as unfinished."""
        before = self.log.episodes()
        result = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        now = self.log.episodes()
        self.log.leave([i for i in range(len(now)) if now[i][0] is not before[i][0]])
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action in every slot and record it."""
        before = self.log.episodes()
        stepped = self.env.step(actions)
        _, rewards, terminations, truncations, infos = stepped
        self.log.record(
            before, rewards, terminations, truncations, lambda slot: _info_of(infos, slot)
        )
        return stepped


def _core_of(env: gym.Env | VectorEnv) -> EnvCore | VolumeCore:
    core = getattr(env.unwrapped, "core", None)
    if not isinstance(core, (EnvCore, VolumeCore)):
        raise TrajectoryError(f"only MedSeg environments can be recorded, not {env.unwrapped!r}")
    return core


def _info_of(infos: dict[str, Any], slot: int) -> dict[str, Any]:
    """The scalars of the step that was taken, out of a vector environment's infos."""
    final = infos.get("final_info")
    if final is not None and infos["_final_info"][slot]:
        infos = final
    return {k: v[slot] for k, v in infos.items() if f"_{k}" in infos and infos[f"_{k}"][slot]}
