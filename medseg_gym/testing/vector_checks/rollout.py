"""Playing a vector environment reproducibly, and what each slot lived through.

The same slot tells the same story in every autoreset mode: a list of `Event`s, "reset" or "step".
That is what makes rollouts of different modes, slot orders, batch sizes and of the single
environment comparable.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from medseg_gym.testing.vector_checks.comparison import difference, slot_info, slot_value, snapshot

Kind = Literal["reset", "step"]


@dataclass
class Return:
    """Return values of one call of `reset` or `step` for all n slots.

    `slots` (n,) bool: the slots that the call was about (a masked reset has fewer).
    `ignored` (n,) bool: the slots that a NEXT_STEP step reset instead of stepping.
    """

    kind: Kind
    observations: Any
    infos: dict[str, Any]
    slots: np.ndarray
    ignored: np.ndarray
    rewards: Any = None
    terminations: Any = None
    truncations: Any = None
    actions: list[Any] = field(default_factory=list)

    @property
    def ended(self) -> np.ndarray:
        """Slots whose episode ended with this call, shape (n,), bool."""
        if self.kind == "reset":
            return np.zeros_like(self.slots)
        ended: np.ndarray = np.logical_or(self.terminations, self.truncations)
        return ended

    def outputs(self) -> dict[str, Any]:
        """The objects the environment handed out, by name."""
        outputs = {"observations": self.observations, "infos": self.infos}
        if self.kind == "step":
            outputs["rewards"] = self.rewards
            outputs["terminations"] = self.terminations
            outputs["truncations"] = self.truncations
        return outputs


@dataclass
class Event:
    """One slot's part of a reset or of a step that counted."""

    kind: Kind
    observation: Any
    info: dict[str, Any]
    action: Any = None
    reward: Any = None
    terminated: Any = None
    truncated: Any = None

    @property
    def ended(self) -> bool:
        """True if this step ended its episode."""
        return self.kind == "step" and bool(self.terminated or self.truncated)


def event_difference(
    expected: Event, actual: Event, *, atol: float = 0.0, loose: bool = False
) -> tuple[str, str] | None:
    """The first field in which two events differ and how; None if they are equal.

    Infos are compared by value: the dtype of a batched info may depend on who else is in it.
    """
    for name in ("kind", "terminated", "truncated", "observation", "reward", "info"):
        a, b = getattr(expected, name), getattr(actual, name)
        text = difference(a, b, atol=atol, loose=loose or name == "info", path=name)
        if text is not None:
            return name, text
    return None


def story_difference(
    expected: Sequence[Event], actual: Sequence[Event], *, atol: float = 0.0
) -> str | None:
    """Return where two slots' stories differ, as far as both go; None if they do not."""
    episode, step = 0, 0
    for a, b in zip(expected, actual, strict=False):
        episode, step = (episode + 1, 0) if a.kind == "reset" else (episode, step + 1)
        text = event_difference(a, b, atol=atol)
        if text is not None:
            return f"episode {episode}, step {step}: {text[1]}"
    return None


@dataclass
class Rollout:
    """The returns of consecutive calls, as copies that nobody else holds."""

    mode: AutoresetMode
    observation_space: gym.Space  # of a single environment
    returns: list[Return] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Number of calls of `step`."""
        return sum(r.kind == "step" for r in self.returns)

    @property
    def ends(self) -> np.ndarray:
        """Number of episodes that ended in each slot, shape (n,)."""
        ends: np.ndarray = np.sum([r.ended for r in self.returns], axis=0)
        return ends

    @property
    def steps_to_first_end(self) -> int:
        """Calls of `step` up to and including the first that ended an episode in any slot."""
        taken = 0
        for r in self.returns:
            taken += r.kind == "step"
            if r.ended.any():
                return taken
        raise ValueError("no episode ended in this rollout")

    def observation(self, r: Return, slot: int) -> Any:
        """Slot `slot`'s observation in the return `r`."""
        return slot_value(self.observation_space, r.observations, slot)

    def story(self, slot: int) -> list[Event]:
        """Return the events of slot `slot`, written alike for the three autoreset modes."""
        events: list[Event] = []
        for r in self.returns:
            if not r.slots[slot]:
                continue
            observation, info = self.observation(r, slot), slot_info(r.infos, slot)
            if r.kind == "reset" or r.ignored[slot]:
                events.append(Event("reset", observation, info))
                continue
            swapped = self.mode == AutoresetMode.SAME_STEP and bool(r.ended[slot])
            final = info.pop("final_obs", None) if swapped else observation
            final_info = info.pop("final_info", {}) if swapped else info
            events.append(
                Event(
                    "step",
                    final,
                    final_info,
                    r.actions[slot],
                    r.rewards[slot],
                    r.terminations[slot],
                    r.truncations[slot],
                )
            )
            if swapped:
                events.append(Event("reset", observation, info))
        return events

    def episodes(self, slot: int) -> list[list[Event]]:
        """The steps of each of slot `slot`'s episodes; the last may be unfinished."""
        episodes: list[list[Event]] = []
        for event in self.story(slot):
            if event.kind == "reset":
                episodes.append([])
            else:
                episodes[-1].append(event)
        return episodes


class ActionStream:
    """An endless reproducible sequence of actions; stream[k] is the same whenever it is asked."""

    def __init__(self, space: gym.Space, key: int) -> None:
        self._space = copy.deepcopy(space)  # the environment's own generator is left alone
        self._space.seed(key)
        self._actions: list[Any] = []

    def __getitem__(self, k: int) -> Any:
        while len(self._actions) <= k:
            self._actions.append(self._space.sample())
        return snapshot(self._actions[k])

    def other_than(self, action: Any, k: int) -> Any:
        """The k-th action or the next one that differs from `action`, within 16."""
        for candidate in range(16 * k, 16 * k + 16):
            if difference(action, self[candidate]) is not None:
                return self[candidate]
        return action


def batch_actions(envs: VectorEnv, actions: Sequence[Any]) -> Any:
    """Single actions, one per slot, as the batch that `envs.step` takes."""
    space = envs.single_action_space
    empty: Any = create_empty_array(space, len(actions), fn=np.zeros)
    return concatenate(space, actions, empty)


Hook = Callable[[Return, Any], None]


def play(
    envs: Any,
    mode: AutoresetMode,
    streams: Sequence[ActionStream],
    steps: int,
    *,
    seed: int | list[int] | None = None,
    other_ignored_actions: bool = False,
    leave_ended: bool = False,
    reset_first_every: int | None = None,
    enough: Callable[[Rollout], bool] = lambda rollout: False,
    on_return: Hook | None = None,
    after_return: Hook | None = None,
) -> Rollout:
    """Resets `envs` and plays them as a learner would in their autoreset mode.

    Args:
        envs: The vector environment with n slots.
        mode: Its autoreset mode; DISABLED slots are reset by mask as soon as they end.
        streams: n action streams. A stream advances only with steps that count.
        steps: Number of calls of `step`.
        seed: Passed to `reset`.
        other_ignored_actions: Send different actions where NEXT_STEP ignores the action.
        leave_ended: Return right after the last step, without the masked reset that DISABLED
            asks for.
        reset_first_every: Under DISABLED, reset slot 0 by mask after every so many steps too.
        enough: Asked after every step whether to stop early.
        on_return: Called with the environment's own objects and the actions passed in (None for
            a reset) before they are copied.
        after_return: Called likewise after they are copied, with the same objects.
    """
    n = envs.num_envs
    rollout = Rollout(mode, envs.single_observation_space)
    everyone, nobody = np.ones(n, bool), np.zeros(n, bool)

    def keep(live: Return, passed: Any) -> None:
        if on_return is not None:
            on_return(live, passed)
        rollout.returns.append(
            Return(
                live.kind,
                snapshot(live.observations),
                snapshot(live.infos),
                live.slots,
                live.ignored,
                snapshot(live.rewards),
                snapshot(live.terminations),
                snapshot(live.truncations),
                live.actions,
            )
        )
        if after_return is not None:
            after_return(live, passed)

    observations, infos = envs.reset(seed=seed) if seed is not None else envs.reset()
    keep(Return("reset", observations, infos, everyone, nobody), None)
    counted = [0] * n
    ignored = nobody
    for t in range(steps):
        actions = []
        for i, stream in enumerate(streams):
            action = stream[counted[i]]
            if ignored[i] and other_ignored_actions:
                action = stream.other_than(action, t)
            elif not ignored[i]:
                counted[i] += 1
            actions.append(action)
        batch = batch_actions(envs, snapshot(actions))
        observations, rewards, terminations, truncations, infos = envs.step(batch)
        live = Return(
            "step",
            observations,
            infos,
            everyone,
            ignored,
            rewards,
            terminations,
            truncations,
            actions,
        )
        keep(live, batch)
        ended = rollout.returns[-1].ended
        ignored = ended if mode == AutoresetMode.NEXT_STEP else nobody
        last = t == steps - 1 or enough(rollout)
        mask = ended.copy()
        mask[0] |= reset_first_every is not None and (t + 1) % reset_first_every == 0
        if mode == AutoresetMode.DISABLED and mask.any() and not (last and leave_ended):
            observations, infos = envs.reset(options={"reset_mask": mask.copy()})
            keep(Return("reset", observations, infos, mask, nobody), None)
        if last:
            break
    return rollout
