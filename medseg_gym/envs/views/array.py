"""The array view: episodes as observation arrays, integer rows as prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from medseg_gym.envs.views.prompt_maps import PromptMaps
from medseg_gym.envs.views.protocol import Observations, Reading
from medseg_gym.envs.views.squares import Squares
from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import TOOL_CALL_BINS, TOOLS, ArrayCodec


class ArrayView:
    """Shows episodes as arrays; the truth is never among them.

    Args:
        targets: Vocabulary; `target` is 1 + its index, 0 for a text that is not in it.
        image_size: Side S of the square that image, mask and prompts are squashed to.
        bins: Cells per axis of the action's grid.
        tools: Subset of `TOOLS`.
    """

    def __init__(
        self,
        targets: Sequence[str],
        image_size: int = 128,
        bins: int = TOOL_CALL_BINS,
        tools: Sequence[str] = TOOLS,
    ) -> None:
        self._squares = Squares(image_size)
        self.side = self._squares.side
        self.codec = ArrayCodec(bins, tools)
        self.targets = tuple(targets)
        self._target_index = {text: i + 1 for i, text in enumerate(self.targets)}
        self._maps = PromptMaps(self.side)

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        """Action space of one slot."""
        return self.codec.space

    @property
    def observation_space(self) -> spaces.Dict:
        """Observation space of one slot."""
        side = self.side
        return spaces.Dict(
            {
                "image": spaces.Box(0, 255, (side, side, 3), np.uint8),
                "mask": spaces.Box(0, 255, (side, side, 1), np.uint8),
                "prompts": spaces.Box(0, 255, (side, side, 3), np.uint8),
                "target": spaces.Discrete(len(self.targets) + 1),
                "steps_left": spaces.Box(0, 1, (1,), np.float32),
            }
        )

    @property
    def tools(self) -> tuple[str, ...]:
        """Tools that the agent may use."""
        return self.codec.tools

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        return {"bins": self.codec.bins, "image_size": self.side, "tools": list(self.tools)}

    def check_actions(self, actions: Any, count: int) -> np.ndarray:
        """Actions of all slots as an array, those of slots that have ended as well.

        Raises:
            MedSegError: Not (count, 5) integers within the action space.
        """
        try:
            actions = np.asarray(actions)
        except ValueError as error:  # rows of different lengths
            raise MedSegError(f"actions must be ({count}, 5) integers: {error}") from None
        if actions.shape != (count, 5):
            raise MedSegError(f"actions must be ({count}, 5) integers, got shape {actions.shape}")
        return self.codec.check(actions)

    def idle(self, actions: np.ndarray, slots: Sequence[int]) -> np.ndarray:
        """Actions with "stop", where the agent may, in slots that nobody looks at."""
        stop = self.codec.stop_row
        if stop is None or not len(slots):
            return actions
        nobody = set(slots)  # a slot that was given up may hold its error instead of an action
        return np.array([stop if slot in nobody else row for slot, row in enumerate(actions)])

    def read(self, actions: Any) -> list[Reading]:
        """Prompts of (n, 5) integer rows.

        Raises:
            PromptError: A wrong shape or dtype, or a value outside the action space.
        """
        return [Reading(prompt) for prompt in self.codec.decode(np.asarray(actions))]

    def keep(self, episodes: Sequence[Episode], actions: Any) -> None:
        """Nothing: an episode holds all that this view shows."""

    def carry_over(self, episode: Episode, forked: Episode) -> None:
        """Nothing: an episode holds all that this view shows."""

    def start_info(self) -> dict[str, Any]:
        """Return the entries that the view adds to `info` at reset: none."""
        return {}

    def row(self, observations: Observations, index: int) -> dict[str, Any]:
        """One slot's observation out of a batch, as arrays of its own."""
        # A Discrete space holds numpy's scalars; the others are arrays.
        return {key: value[index].copy() for key, value in observations.items()}

    def observe(self, episodes: Sequence[Episode]) -> Observations:
        """Observations of n episodes as fresh arrays with a leading axis n."""
        left = [[e.steps_left / e.max_steps] for e in episodes]
        return {
            "image": np.stack([self._squares.image(e.case) for e in episodes]),
            "mask": self._masks(episodes),
            "prompts": self._maps.draw([(e.state.box, e.state.points) for e in episodes]),
            "target": np.array(
                [self._target_index.get(e.case.target, 0) for e in episodes], dtype=np.int64
            ),
            "steps_left": np.array(left, dtype=np.float32),
        }

    def _masks(self, episodes: Sequence[Episode]) -> np.ndarray:
        """Masks, N x S x S x 1 uint8."""
        sampled = self._squares.masks([episode.state.mask for episode in episodes])
        return (sampled.view(np.uint8) * np.uint8(255))[..., None]
