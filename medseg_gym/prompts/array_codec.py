"""Array action <-> prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import MultiDiscrete

from medseg_gym.errors import PromptError
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_cell, to_fraction
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint, Clear, Prompt, Stop, Undo

_BARE: dict[str, Prompt] = {"undo": Undo(), "clear": Clear(), "stop": Stop()}


class ArrayCodec:
    """Translates between prompts and rows (tool, x1, y1, x2, y2) of integers.

    A point uses x1 and y1; undo, clear and stop use the tool alone; a box's corners may come in
    any order. Unused entries are written as 0 and ignored on reading.

    Args:
        bins: Cells per axis, at least 2.
        tools: Subset of `TOOLS`; an action's first entry indexes it. Kept in the order of `TOOLS`.

    Raises:
        PromptError: Unknown or repeated tools, or too few bins.
    """

    def __init__(self, bins: int = TOOL_CALL_BINS, tools: Sequence[str] = TOOLS) -> None:
        unknown = [tool for tool in tools if tool not in TOOLS]
        if unknown or not tools or len(set(tools)) < len(tools):
            raise PromptError(f"tools must be distinct names out of {TOOLS}, got {tuple(tools)}")
        if not 2 <= bins <= 65536:
            raise PromptError(f"bins must be in 2..65536, got {bins}")
        self.bins = int(bins)
        self.tools = tuple(tool for tool in TOOLS if tool in tools)

    @property
    def space(self) -> MultiDiscrete:
        """Action space of one slot: MultiDiscrete([tools, bins, bins, bins, bins])."""
        return MultiDiscrete([len(self.tools), *[self.bins] * 4])

    @property
    def stop_row(self) -> np.ndarray | None:
        """The row that stops, (5,) int64, or None where the agent cannot."""
        return self.encode(Stop()) if "stop" in self.tools else None

    def encode(self, prompt: Prompt) -> np.ndarray:
        """Write one prompt as a (5,) int64 row; coordinates fall into their grid cell.

        Raises:
            PromptError: The prompt's tool is not among this codec's tools.
        """
        if prompt.tool not in self.tools:
            raise PromptError(f"tool {prompt.tool!r} is not among this view's tools {self.tools}")
        row = np.zeros(5, dtype=np.int64)
        row[0] = self.tools.index(prompt.tool)
        if isinstance(prompt, AddBox):
            row[1:] = [to_cell(v, self.bins) for v in (prompt.x1, prompt.y1, prompt.x2, prompt.y2)]
        elif isinstance(prompt, AddPoint):
            row[1:3] = to_cell(prompt.x, self.bins), to_cell(prompt.y, self.bins)
        return row

    def check(self, actions: np.ndarray) -> np.ndarray:
        """Rows of integers as they are, or an error: nothing is rounded or clipped into place.

        Args:
            actions: (n, 5) integer array, within the action space.

        Raises:
            PromptError: Wrong shape, a non-integer dtype (NaN and infinity among them), or a value
                outside the action space.
        """
        actions = np.asarray(actions)
        if actions.ndim != 2 or actions.shape[1] != 5 or actions.dtype.kind not in "iu":
            raise PromptError(
                f"actions must be an (n, 5) integer array, got shape {actions.shape} "
                f"dtype {actions.dtype}"
            )
        limits = np.array([len(self.tools), *[self.bins] * 4])
        outside = ((actions < 0) | (actions >= limits)).any(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise PromptError(
                f"action {actions[row].tolist()} of slot {row} is outside the action space "
                f"MultiDiscrete({limits.tolist()})"
            )
        return actions

    def decode(self, actions: np.ndarray) -> list[Prompt]:
        """Read rows of integers.

        Args:
            actions: (n, 5) integer array, within the action space.

        Returns:
            n prompts.

        Raises:
            PromptError: As `check`.
        """
        return [self._decode_row(row) for row in self.check(actions).tolist()]

    def _decode_row(self, row: list[int]) -> Prompt:
        tool = self.tools[row[0]]
        if tool == "box":
            return AddBox(*(to_fraction(v, self.bins) for v in row[1:]))
        if tool in ("positive_point", "negative_point"):
            x, y = (to_fraction(v, self.bins) for v in row[1:3])
            return AddPoint(x, y, positive=tool == "positive_point")
        return _BARE[tool]
