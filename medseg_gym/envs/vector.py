"""The vector environment behind every view: many episodes, one decoder call per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from medseg_gym.envs.core import EnvAttributes, EnvCore, SlotState, read_reset_options
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.own_spaces import CopiedSpace, SeededSpace
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.errors import EpisodeError, MedSegError

_Stepped = tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class CoreVectorEnv(EnvAttributes, VectorEnv[Observations, Any, Any]):
    """`num_envs` slots of an `EnvCore`; subclasses name their options and so their view.

    Seeds, reset options and autoreset modes are described at `MedSegVectorEnv`.

    Args:
        num_envs: Slots.
        max_episode_steps: A time limit on top of `max_steps`; reaching it truncates.
        autoreset_mode: "next_step", "same_step" or "disabled".
        render_mode: "rgb_array" makes `render` return one frame per slot.
        **options: Of `options_class`.
    """

    options_class: ClassVar[type[EnvOptions]] = EnvOptions
    core_class: ClassVar[type[Any]] = EnvCore
    single_observation_space: Any = CopiedSpace()
    single_action_space: Any = SeededSpace()
    action_space: Any = SeededSpace()

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        given = self.options_class.from_arguments(options)
        self.core = self.core_class(given, num_envs)
        self.options = self.core.options
        self.num_envs = num_envs
        self.autoreset_mode = _read_mode(autoreset_mode)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 2,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = render_mode
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = self.core.view.observation_space
        self.single_action_space = self.core.view.action_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._slots = range(num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._terminations = np.zeros(num_envs, bool)
        self._truncations = np.zeros(num_envs, bool)

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        """Of all slots; a copy, like `single_observation_space`."""
        return batch_space(self.single_observation_space, self.num_envs)

    # reset --------------------------------------------------------------------------------------
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes; see the class for `seed` and `options`.

        Raises:
            MedSegError: Seeds, cases or mask of another length, or an unknown option.
            CaseError: No case has that key.
        """
        given = read_reset_options(options, "case", "reset_mask")
        slots = self._masked_slots(given.get("reset_mask"))
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in self._slots]
        else:
            seeds = list(seed)
        keys = given.get("case")
        keys = [keys] * self.num_envs if keys is None or isinstance(keys, str) else list(keys)
        for name, values in (("seed", seeds), ("options['case']", keys)):
            if len(values) != self.num_envs:
                raise MedSegError(
                    f"{name} must have one entry per slot ({self.num_envs}), got {len(values)}"
                )
        for slot in slots:
            if seeds[slot] is not None:
                self._generators[slot] = seeding.np_random(seeds[slot])[0]
        infos = self._start(slots, [keys[slot] for slot in slots])
        return self.core.observe(self._slots), self._batch_infos(slots, infos)

    def _masked_slots(self, mask: Any) -> list[int]:
        if mask is None:
            return list(self._slots)
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise MedSegError(
                f"options['reset_mask'] must be a ({self.num_envs},) bool array with a True in "
                f"it, got {mask.dtype} {mask.shape}"
            )
        never = [i for i in self._slots if not mask[i] and self.core.engine.episodes[i] is None]
        if never:
            raise MedSegError(
                f"slots {never} have no episode yet; reset all slots before resetting some"
            )
        return np.flatnonzero(mask).tolist()

    def _start(self, slots: Sequence[int], keys: Sequence[str | None]) -> list[dict[str, Any]]:
        infos = self.core.reset(slots, self._generator, keys)
        self._terminations[list(slots)] = False
        self._truncations[list(slots)] = False
        return infos

    def _generator(self, slot: int) -> np.random.Generator:
        generator = self._generators[slot]
        if generator is None:
            generator = self._generators[slot] = seeding.np_random()[0]
        return generator

    # step ---------------------------------------------------------------------------------------
    def step(self, actions: Any) -> _Stepped:
        """Take one action of the view in every slot."""
        actions = self.core.view.check_actions(actions, self.num_envs)
        ended = self._terminations | self._truncations
        running = [i for i in np.flatnonzero(~ended).tolist() if actions[i] is not None]
        rewards = np.zeros(self.num_envs)
        infos: dict[str, Any] = {}
        if running:
            results = self.core.step(running, [actions[i] for i in running])
            rewards[running] = [result.reward for result in results]
            self._terminations[running] = [result.terminated for result in results]
            if self.max_episode_steps is not None:
                taken = [len(self.core.engine.episode(slot).steps) for slot in running]
                self._truncations[running] = np.array(taken) >= self.max_episode_steps
            infos = self._batch_infos(running, [result.info for result in results])
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and ended.any():
            slots = np.flatnonzero(ended).tolist()
            infos = self._batch_infos(slots, self._start(slots, [None] * len(slots)), infos)
        terminations, truncations = self._terminations.copy(), self._truncations.copy()
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._reset_at_once(infos)
        return self.core.observe(self._slots), rewards, terminations, truncations, infos

    def _reset_at_once(self, infos: dict[str, Any]) -> dict[str, Any]:
        slots = np.flatnonzero(self._terminations | self._truncations).tolist()
        if not slots:
            return infos
        keys = [key for key in infos if not key.startswith("_")]
        final = self.core.observe(slots)
        finals = []
        for row, slot in enumerate(slots):
            last = {key: infos[key][slot] for key in keys if infos[f"_{key}"][slot]}
            # Plain Python values: `_add_info` gives numpy's own bool no bool array.
            last = {k: v.item() if isinstance(v, np.generic) else v for k, v in last.items()}
            shown = self.core.view.row(final, row)
            finals.append({"final_obs": shown, "final_info": last})
            for key in keys:
                infos[f"_{key}"][slot] = False
        started = self._start(slots, [None] * len(slots))
        infos = self._batch_infos(slots, finals, infos)
        return self._batch_infos(slots, started, infos)

    def _batch_infos(
        self,
        slots: Sequence[int],
        infos: Sequence[dict[str, Any]],
        into: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        batched = {} if into is None else into
        for slot, info in zip(slots, infos, strict=True):
            batched = self._add_info(batched, info, slot)
        return batched

    # fork ---------------------------------------------------------------------------------------
    def fork(self, sources: Sequence[int], targets: Sequence[int] | None = None) -> list[int]:
        """Copy running episodes into other slots, from where source and copy go on by themselves.

        A copy replays its source bit by bit: the same actions give the same observations, rewards,
        flags, infos and masks, and after an end the same next case, for the slot's generator is
        copied too (`reset(seed=...)` seeds it anew). Case, embedding, masks and logits so far are
        shared, not copied, and nothing is encoded or decoded: a fork costs two short lists.

        Args:
            sources: Slots with running episodes; one may stand there several times.
            targets: As many distinct slots, none of them a source; an episode that runs there is
                given up. None takes free slots, those without an episode or whose episode has
                ended, in order.

        Returns:
            The targets. What they would observe now is what their sources observed last.

        Raises:
            EpisodeError: A source that was never reset or has ended.
            MedSegError: A slot that does not exist, targets that are not as said above, or fewer
                free slots than sources.
        """
        given = self._check_slots("sources", sources)
        taken = (
            self._free_slots(given) if targets is None else self._check_slots("targets", targets)
        )
        if len(taken) != len(given) or len(set(taken)) < len(taken) or set(taken) & set(given):
            raise MedSegError(
                f"targets must be {len(given)} distinct slots, one per source and none of them a "
                f"source, got {taken} for the sources {given}"
            )
        self.restore_state(taken, self.clone_state(given))
        return taken

    def _free_slots(self, sources: Sequence[int]) -> list[int]:
        ended = self._terminations | self._truncations
        free = [i for i in self._slots if ended[i] or self.core.engine.episodes[i] is None]
        free = [i for i in free if i not in sources]
        if len(free) < len(sources):
            raise MedSegError(
                f"{len(sources)} episodes to fork, but only {len(free)} slots of {self.num_envs} "
                "are free (their episode has ended); name targets whose episodes may be given up"
            )
        return free[: len(sources)]

    def clone_state(self, slots: Sequence[int]) -> list[SlotState]:
        """Copy the states of slots, which `restore_state` puts back as often as one likes.

        Args:
            slots: With running episodes.

        Raises:
            EpisodeError: A slot that was never reset, or whose episode has ended.
            MedSegError: A slot that does not exist.
        """
        slots = self._check_slots("slots", slots)
        cut = [i for i in slots if self._truncations[i]]
        if cut:
            raise EpisodeError(
                f"the episodes in slots {cut} were cut off by the time limit of "
                f"{self.max_episode_steps} steps; reset them first"
            )
        return [self.core.clone_state(slot, self._generator(slot)) for slot in slots]

    def restore_state(self, slots: Sequence[int], states: Sequence[SlotState]) -> None:
        """Put episodes back to where they were cloned, in any slots of this environment.

        Args:
            slots: Distinct; whatever runs there is given up.
            states: One per slot; one may stand there several times.

        Raises:
            EpisodeError: A state of another environment.
            MedSegError: A slot that does not exist or is named twice, or not one state per slot.
        """
        slots = self._check_slots("slots", slots)
        if len(set(slots)) < len(slots) or len(slots) != len(states):
            raise MedSegError(
                f"slots must be distinct, one per state, got {slots} for {len(states)} states"
            )
        for slot, state in zip(slots, states, strict=True):
            self._generators[slot] = self.core.restore_state(slot, state)
            self._terminations[slot] = self._truncations[slot] = False

    def _check_slots(self, name: str, slots: Sequence[int]) -> list[int]:
        numbers = [int(slot) for slot in slots]
        outside = [slot for slot in numbers if slot not in self._slots]
        if outside:
            raise MedSegError(f"{name}: no slot {outside}; there are 0 to {self.num_envs - 1}")
        return numbers

    def render(self) -> Any:  # gymnasium's generic frames differ between versions
        """One `rendering.FRAME_SHAPE` uint8 frame per slot in mode "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(self.core.frame(slot) for slot in self._slots)


def _read_mode(mode: AutoresetMode | str) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    by_name = {m.name.lower(): m for m in AutoresetMode}
    if str(mode).lower() not in by_name:
        raise MedSegError(f"autoreset_mode must be one of {list(by_name)}, got {mode!r}")
    return by_name[str(mode).lower()]
