"""Array action of a volume <-> prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gym.errors import PromptError
from medseg_gym.prompts.array_codec import RowCodec, check_cells, check_tools
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_cell, to_fraction
from medseg_gym.prompts.types import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes.types import (
    VOLUME_TOOLS,
    Look,
    Propagate,
    SlicePrompt,
    VolumePrompt,
)

_BARE: dict[str, VolumePrompt] = {
    "propagate": Propagate(),
    "undo": Undo(),
    "clear": Clear(),
    "stop": Stop(),
}


class VolumeCodec(RowCodec):
    """Translates between prompts and rows (tool, slice, x1, y1, x2, y2) of integers.

    Volumes differ in depth, the action space does not: cell v of `slices` stands for slice
    floor((v + 0.5) / slices * depth). Up to a depth of `slices` every slice has a cell; with
    `slices` equal to the depth the cell is the slice's index.

    A point uses the slice, x1 and y1; look the slice alone; propagate, undo, clear and stop the
    tool alone. Unused entries are written as 0 and ignored on reading.

    Args:
        slices: Cells along the volume, at least 2.
        bins: Cells per axis of a slice, at least 2.
        tools: Subset of `VOLUME_TOOLS`; an action's first entry indexes it. Kept in that order.

    Raises:
        PromptError: Unknown or repeated tools, or too few cells.
    """

    def __init__(
        self,
        slices: int = 64,
        bins: int = TOOL_CALL_BINS,
        tools: Sequence[str] = VOLUME_TOOLS,
    ) -> None:
        self.tools = check_tools(tools, VOLUME_TOOLS)
        self.slices, self.bins = check_cells("slices", slices), check_cells("bins", bins)
        self.cells = (self.slices, *(self.bins,) * 4)

    def slice_cell(self, index: int, depth: int) -> int:
        """Cell of a slice; beyond `slices` slices the cell whose slice is nearest."""
        return min(max((2 * index + 1) * self.slices // (2 * depth), 0), self.slices - 1)

    def slice_of(self, cell: int, depth: int) -> int:
        """Slice that a cell stands for in a volume of `depth` slices."""
        return (2 * cell + 1) * depth // (2 * self.slices)

    def encode(self, prompt: VolumePrompt, depth: int) -> np.ndarray:
        """Write one prompt as a (6,) int64 row; slice and coordinates fall into their cells.

        Args:
            prompt: To write.
            depth: Slices of its volume.

        Raises:
            PromptError: The prompt's tool is not among this codec's tools, or the volume has no
                such slice.
        """
        row = self.begin_row(prompt.tool)
        if isinstance(prompt, (SlicePrompt, Look)):
            if prompt.slice >= depth:
                raise PromptError(f"slice {prompt.slice} is beyond the volume's {depth} slices")
            row[1] = self.slice_cell(prompt.slice, depth)
        if isinstance(prompt, SlicePrompt):
            inner = prompt.prompt
            if isinstance(inner, AddBox):
                corners = (inner.x1, inner.y1, inner.x2, inner.y2)
                row[2:] = [to_cell(value, self.bins) for value in corners]
            else:
                row[2:4] = to_cell(inner.x, self.bins), to_cell(inner.y, self.bins)
        return row

    def decode(self, actions: np.ndarray, depths: Sequence[int]) -> list[VolumePrompt]:
        """Read rows of integers.

        Args:
            actions: (n, 6) integer array, within the action space.
            depths: Slices of each of the n volumes.

        Returns:
            n prompts.

        Raises:
            PromptError: As `check`.
        """
        rows = self.check(actions).tolist()
        return [self._read(row, depth) for row, depth in zip(rows, depths, strict=True)]

    def _read(self, row: list[int], depth: int) -> VolumePrompt:
        tool = self.tools[row[0]]
        if tool in _BARE:
            return _BARE[tool]
        index = self.slice_of(row[1], depth)
        if tool == "look":
            return Look(index)
        corners = [to_fraction(value, self.bins) for value in row[2:]]
        if tool == "box":
            return SlicePrompt(index, AddBox(*corners))
        return SlicePrompt(index, AddPoint(corners[0], corners[1], tool == "positive_point"))
