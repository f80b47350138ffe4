"""Rows of integers as actions, arrays as observations: the common part of array views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from medseg_gym.envs.views.protocol import Observations
from medseg_gym.errors import MedSegError


class RowView:
    """Reads rows of integers; a subclass has a `codec` that knows them, and shows episodes."""

    codec: Any

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """Action space of one slot."""
        space: spaces.MultiDiscrete = self.codec.space
        return space

    @property
    def tools(self) -> tuple[str, ...]:
        """Tools that the agent may use."""
        tools: tuple[str, ...] = self.codec.tools
        return tools

    def check_actions(self, actions: Any, count: int) -> np.ndarray:
        """Actions of all slots as an array, those of slots that have ended as well.

        Raises:
            MedSegError: Not (count, W) integers within the action space, rows of W.
        """
        wanted = f"({count}, {self.codec.width}) integers"
        try:
            actions = np.asarray(actions)
        except ValueError as error:  # rows of different lengths
            raise MedSegError(f"actions must be {wanted}: {error}") from None
        if actions.shape != (count, self.codec.width):
            raise MedSegError(f"actions must be {wanted}, got shape {actions.shape}")
        checked: np.ndarray = self.codec.check(actions)
        return checked

    def idle(self, actions: np.ndarray, slots: Sequence[int]) -> np.ndarray:
        """Actions with "stop", where the agent may, in slots that nobody looks at.

        Raises:
            MedSegError: Rows of another length.
        """
        stop = self.codec.stop_row
        if stop is None or not len(slots):
            return actions
        nobody = set(slots)  # a slot that was given up may hold its error instead of an action
        rows = [stop if slot in nobody else row for slot, row in enumerate(actions)]
        try:
            return np.array(rows)
        except ValueError as error:
            wanted = f"{len(rows)} rows of {self.codec.width} integers"
            raise MedSegError(f"actions must be {wanted}: {error}") from None

    def carry_over(self, episode: Any, forked: Any) -> None:
        """Nothing: an episode holds all that such a view shows."""

    def start_info(self) -> dict[str, Any]:
        """Return the entries that the view adds to `info` at reset: none."""
        return {}

    def row(self, observations: Observations, index: int) -> dict[str, Any]:
        """One slot's observation out of a batch, as arrays of its own."""
        # A Discrete space holds numpy's scalars; the others are arrays.
        return {key: value[index].copy() for key, value in observations.items()}
