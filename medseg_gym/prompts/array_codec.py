"""Array action <-> prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium.spaces import MultiDiscrete

from medseg_gym.errors import PromptError
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_cell, to_fraction
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint, Clear, Prompt, Stop, Undo

_BARE: dict[str, Prompt] = {"undo": Undo(), "clear": Clear(), "stop": Stop()}


def check_tools(tools: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return tools in the order of all that there are.

    Raises:
        PromptError: Unknown or repeated ones, or none.
    """
    if not tools or len(set(tools)) < len(tools) or not set(tools) <= set(known):
        raise PromptError(f"tools must be distinct names out of {known}, got {tuple(tools)}")
    return tuple(tool for tool in known if tool in tools)


def check_cells(name: str, cells: int) -> int:
    """Return the cells of an axis.

    Raises:
        PromptError: Fewer than 2, or more than 65536.
    """
    if not 2 <= cells <= 65536:
        raise PromptError(f"{name} must be in 2..65536, got {cells}")
    return int(cells)


class RowCodec:
    """Knows the action space of rows (tool, cells ...); a subclass writes and reads them.

    Attributes:
        tools: An action's first entry indexes them.
        cells: Of the other entries of a row.
    """

    tools: tuple[str, ...]
    cells: tuple[int, ...]

    @property
    def width(self) -> int:
        """Entries of a row."""
        return 1 + len(self.cells)

    @property
    def space(self) -> MultiDiscrete:
        """Action space of one slot: MultiDiscrete([tools, *cells])."""
        return MultiDiscrete([len(self.tools), *self.cells])

    def begin_row(self, tool: str) -> np.ndarray:
        """Return a row of a tool whose other entries are 0, (W,) int64.

        Raises:
            PromptError: The tool is not among this codec's.
        """
        if tool not in self.tools:
            raise PromptError(f"tool {tool!r} is not among this view's tools {self.tools}")
        row = np.zeros(self.width, dtype=np.int64)
        row[0] = self.tools.index(tool)
        return row

    @property
    def stop_row(self) -> np.ndarray | None:
        """The row that stops, (W,) int64, or None where the agent cannot."""
        return self.begin_row("stop") if "stop" in self.tools else None

    def check(self, actions: np.ndarray) -> np.ndarray:
        """Rows of integers as they are, or an error: nothing is rounded or clipped into place.

        Args:
            actions: (n, W) integer array, within the action space.

        Raises:
            PromptError: Wrong shape, a non-integer dtype (NaN and infinity among them), or a value
                outside the action space.
        """
        actions = np.asarray(actions)
        wrong = actions.ndim != 2 or actions.shape[1] != self.width
        if wrong or actions.dtype.kind not in "iu":
            raise PromptError(
                f"actions must be an (n, {self.width}) integer array, got shape {actions.shape} "
                f"dtype {actions.dtype}"
            )
        limits = np.array([len(self.tools), *self.cells])
        outside = ((actions < 0) | (actions >= limits)).any(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise PromptError(
                f"action {actions[row].tolist()} of slot {row} is outside the action space "
                f"MultiDiscrete({limits.tolist()})"
            )
        return actions


class ArrayCodec(RowCodec):
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
        self.tools = check_tools(tools, TOOLS)
        self.bins = check_cells("bins", bins)
        self.cells = (self.bins,) * 4

    def encode(self, prompt: Prompt) -> np.ndarray:
        """Write one prompt as a (5,) int64 row; coordinates fall into their grid cell.

        Raises:
            PromptError: The prompt's tool is not among this codec's tools.
        """
        row = self.begin_row(prompt.tool)
        if isinstance(prompt, AddBox):
            row[1:] = [to_cell(v, self.bins) for v in (prompt.x1, prompt.y1, prompt.x2, prompt.y2)]
        elif isinstance(prompt, AddPoint):
            row[1:3] = to_cell(prompt.x, self.bins), to_cell(prompt.y, self.bins)
        return row

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
