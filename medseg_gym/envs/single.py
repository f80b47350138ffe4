"""The single environment behind every view: one agent, one image, one target."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import gymnasium as gym

from medseg_gym.envs.core import EnvAttributes, EnvCore, SlotState, read_reset_options
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.own_spaces import CopiedSpace, SeededSpace
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError


class CoreEnv(EnvAttributes, gym.Env[Any, Any]):
    """One slot of an `EnvCore`; subclasses name their options and so their view.

    Args:
        render_mode: "rgb_array" gives a frame, "human" shows it in a window where there is one.
        **options: Of `options_class`.
    """

    options_class: ClassVar[type[EnvOptions]] = EnvOptions
    core_class: ClassVar[type[Any]] = EnvCore
    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 2}  # noqa: RUF012
    observation_space: Any = CopiedSpace()
    action_space: Any = SeededSpace()

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.metadata = deepcopy(type(self).metadata)  # gymnasium's vectors write into it
        given = self.options_class.from_arguments(options)
        self.core = self.core_class(given, num_slots=1)
        self.options = self.core.options
        self.observation_space = self.core.view.observation_space
        self.action_space = self.core.view.action_space
        self.render_mode = render_mode
        self._window: Any = None

    @property
    def episode(self) -> Episode:
        """Episode being played, truth included; not for policies."""
        return self.core.engine.episode(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start an episode; see the class for `options`."""
        super().reset(seed=seed)
        given = read_reset_options(options, "case")
        (info,) = self.core.reset([0], lambda slot: self.np_random, [given.get("case")])
        return self._observe(), info

    def step(self, action: Any) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Take one action of the view.

        Raises:
            MedSegError: No such action.
        """
        if action is None:  # in a vector environment it would sit the step out
            raise MedSegError("step wants an action, got None; an empty answer is ''")
        (result,) = self.core.step([0], self.core.view.check_actions([action], 1))
        return self._observe(), result.reward, result.terminated, False, result.info

    def clone_state(self) -> SlotState:
        """Copy the state of the running episode, its generator included.

        Steps that wrappers count (a time limit's, say) are not part of it.

        Raises:
            EpisodeError: There is no episode yet, or it is over.
        """
        return self.core.clone_state(0, self.np_random)

    def restore_state(self, state: SlotState) -> Observations:
        """Go back to a state, as often as one likes.

        Args:
            state: From this environment's `clone_state`.

        Returns:
            The observation there.

        Raises:
            EpisodeError: The state of another environment.
        """
        self.np_random = self.core.restore_state(0, state)
        return self._observe()

    def _observe(self) -> Observations:
        if self.render_mode == "human":
            self._show()
        return self.core.view.row(self.core.observe([0]), 0)

    def render(self) -> Any:  # gymnasium's generic frames differ between versions
        """The episode as `rendering.FRAME_SHAPE` uint8 in mode "rgb_array", whatever its image."""
        return self.core.frame(0) if self.render_mode == "rgb_array" else None

    def _show(self) -> None:
        from medseg_gym.envs.rendering import Window

        if self._window is None:
            self._window = Window(type(self).__name__)
        self._window.show(self.core.undistorted_frame(0))

    def close(self) -> None:
        """Close the window, if any; models stay shared with other environments."""
        if self._window is not None:
            self._window.close()
            self._window = None
