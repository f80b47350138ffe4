"""The array view: episodes as observation arrays, integer rows as prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from medseg_gym.envs.views.prompt_maps import PromptMaps
from medseg_gym.envs.views.protocol import Observations, Reading
from medseg_gym.envs.views.rows import RowView
from medseg_gym.envs.views.squares import Squares
from medseg_gym.episodes import Episode
from medseg_gym.prompts import TOOL_CALL_BINS, TOOLS, ArrayCodec


class ArrayView(RowView):
    """Shows episodes as arrays; the truth is never among them.

    Args:
        targets: Vocabulary; `target` is 1 + its index, 0 for a text that is not in it.
        image_size: Side S of the square that image, mask and prompts are squashed to.
        bins: Cells per axis of the action's grid.
        tools: Subset of `TOOLS`.
    """

    image_keys: ClassVar[tuple[str, ...]] = ("image",)

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
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        return {"bins": self.codec.bins, "image_size": self.side, "tools": list(self.tools)}

    def read(self, actions: Any) -> list[Reading]:
        """Prompts of (n, 5) integer rows.

        Raises:
            PromptError: A wrong shape or dtype, or a value outside the action space.
        """
        return [Reading(prompt) for prompt in self.codec.decode(np.asarray(actions))]

    def keep(self, episodes: Sequence[Episode], actions: Any) -> None:
        """Nothing: an episode holds all that this view shows."""

    @property
    def mask_side(self) -> int:
        """Side of the square at which masks are shown."""
        return self.side

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
        sampled = self._squares.masks_of([episode.state for episode in episodes])
        return (sampled.view(np.uint8) * np.uint8(255))[..., None]
