"""Laws of shape: spaces, autoreset mode, what reset and step return, how infos are batched."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from medseg_gym.testing.vector_checks.comparison import (
    difference,
    is_mask,
    slot_value,
    slots_in,
    snapshot,
    space_mismatch,
)
from medseg_gym.testing.vector_checks.report import VectorEnvError
from medseg_gym.testing.vector_checks.rollout import Return, Rollout
from medseg_gym.testing.vector_checks.subject import ENDS_PER_SLOT, MAX_STEPS, SEED, Subject


def check_spaces(subject: Subject) -> None:
    """The batched spaces are the single spaces, `num_envs` times.

    Learners build networks from the single spaces and buffers from the batched ones.
    """
    envs = subject.envs
    if not isinstance(envs.num_envs, int) or envs.num_envs < 1:
        raise VectorEnvError(
            "num_envs to be a positive int", repr(envs.num_envs), "num_envs is not set"
        )
    for kind in ("observation", "action"):
        single: Any = getattr(envs, f"single_{kind}_space", None)
        batched: Any = getattr(envs, f"{kind}_space", None)
        for name, space in ((f"single_{kind}_space", single), (f"{kind}_space", batched)):
            if not isinstance(space, gym.Space):
                raise VectorEnvError(
                    f"{name} to be a gymnasium Space", repr(space), "__init__ does not set it"
                )
            sampler = copy.deepcopy(space)
            sampler.seed(SEED)
            sample = sampler.sample()
            if not space.contains(sample):
                raise VectorEnvError(
                    f"{name} to contain its own samples",
                    f"{sample!r} is not in {space}",
                    "the space's bounds or dtype contradict each other",
                )
        # SyncVectorEnv's other observation modes batch bounds that differ from slot to slot
        mode = getattr(envs.unwrapped, "observation_mode", "same")
        expected = batch_space(single, envs.num_envs)
        if batched != expected and (kind == "action" or mode == "same"):
            raise VectorEnvError(
                f"{kind}_space == batch_space(single_{kind}_space, {envs.num_envs}), {expected}",
                f"{batched}",
                "build it with gymnasium.vector.utils.batch_space",
            )


def check_autoreset_mode(subject: Subject) -> None:
    """`metadata["autoreset_mode"]` is an `AutoresetMode`.

    A learner that assumes another mode than the environment's records wrong transitions and says
    nothing.
    """
    mode = subject.envs.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise VectorEnvError(
            "metadata['autoreset_mode'] to be a gymnasium.vector.AutoresetMode",
            repr(mode),
            "declare it: self.metadata = {**self.metadata, 'autoreset_mode': AutoresetMode...}",
        )
    subject.mode = mode


def check_reset_and_step(subject: Subject) -> None:
    """`reset` and `step` return batches in the batched spaces, with the dtypes that are promised.

    Buffers are allocated once from the spaces: another dtype or shape is cast or broadcast there
    without a word, and one infinite reward ruins a whole update.
    """
    envs, n = subject.envs, subject.num_envs
    latest: list[Any] = []

    def inspect(live: Return, _: Any) -> None:
        call = f"{live.kind}()"
        text = space_mismatch(envs.observation_space, live.observations, "observations")
        if text is not None:
            raise VectorEnvError(
                f"observations of {call} in observation_space, dtypes and shapes exactly",
                text,
                "the observation is batched or cast differently from what the space says",
            )
        if not isinstance(live.infos, dict):
            raise VectorEnvError(
                f"infos of {call} to be a dict",
                type(live.infos).__name__,
                "a list of infos is the convention of gym < 0.24; see VectorEnv._add_info",
            )
        if live.kind == "reset":
            if not live.slots.all():
                _require_untouched(subject, ~live.slots, latest[0], live.observations)
            return
        latest[:] = [snapshot(live.observations)]
        rewards = live.rewards
        array = isinstance(rewards, np.ndarray)
        if not array or rewards.shape != (n,) or rewards.dtype.kind != "f":
            raise VectorEnvError(
                f"rewards to be a float array of shape ({n},)",
                _describe(rewards),
                "convert with np.asarray(rewards, dtype=np.float64)",
            )
        if not np.isfinite(rewards).all():
            raise VectorEnvError(
                "finite rewards",
                f"{rewards}",
                "a division by zero or a logarithm of zero in the reward",
                slots=slots_in(~np.isfinite(rewards)),
            )
        for name in ("terminations", "truncations"):
            flags = getattr(live, name)
            if not isinstance(flags, np.ndarray) or flags.shape != (n,) or flags.dtype != bool:
                raise VectorEnvError(
                    f"{name} to be a bool array of shape ({n},)",
                    _describe(flags),
                    f"convert with np.asarray({name}, dtype=bool)",
                )

    def enough(rollout: Rollout) -> bool:
        return bool((rollout.ends >= ENDS_PER_SLOT).all())

    subject.reference = subject.play(SEED, steps=MAX_STEPS, on_return=inspect, enough=enough)


def _require_untouched(subject: Subject, others: object, before: Any, after: object) -> None:
    """A masked reset, which DISABLED needs for playing on at all, leaves other slots alone."""
    space = subject.envs.single_observation_space
    for i in slots_in(others):
        a, b = slot_value(space, before, i), slot_value(space, after, i)
        text = difference(a, b, path="observation")
        if text is not None:
            raise VectorEnvError(
                "slots outside reset_mask to keep their observations, bit for bit",
                text,
                "reset_mask is ignored and everything is reset, or it is read the wrong way round",
                slots=[i],
                check="reset mask",
            )


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


def check_infos(subject: Subject) -> None:
    """Every info `key` is an array of length n with a bool mask `_key` beside it.

    Readers (wrappers, episode statistics, learners) take `infos[key][infos["_key"]]`; a wrong mask
    credits one slot with another's numbers. Inside a nested dict that has a mask itself, inner
    masks may be left out, as gymnasium's RecordEpisodeStatistics does.
    """
    for r in subject.reference.returns:
        _check_info_level(r.infos, subject.num_envs, f"{r.kind}() infos", nested=False)


def _check_info_level(infos: Mapping[str, object], n: int, path: str, *, nested: bool) -> None:
    cause = "fill infos with VectorEnv._add_info, or in its manner"
    for key, value in infos.items():
        if not isinstance(key, str):
            raise VectorEnvError(f"string keys in {path}", repr(key), cause)
        place = f"{path}[{key!r}]"
        if is_mask(infos, key):
            if not isinstance(value, np.ndarray) or value.shape != (n,) or value.dtype != bool:
                raise VectorEnvError(
                    f"{place} to be a bool mask of shape ({n},)", _describe(value), cause
                )
            continue
        if f"_{key}" not in infos and not nested:
            other = f" ({key!r} may be a mask whose entry is missing)" if key[0:1] == "_" else ""
            raise VectorEnvError(
                f"a mask {f'_{key}'!r} beside {place}", f"{sorted(infos)}{other}", cause
            )
        if isinstance(value, Mapping):
            _check_info_level(value, n, place, nested=True)
        elif not isinstance(value, np.ndarray) or value.ndim < 1 or len(value) != n:
            raise VectorEnvError(f"{place} to be an array of length {n}", _describe(value), cause)
