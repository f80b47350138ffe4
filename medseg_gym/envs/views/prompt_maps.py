"""Prompts drawn as maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gym.prompts import AddBox, AddPoint


class PromptMaps:
    """Draws discs at clicks and filled boxes on S x S squares.

    Args:
        side: S in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        radius = max(1, round(side / 64))
        dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        inside = dx * dx + dy * dy <= radius * radius + radius // 2
        self._disc = dy[inside], dx[inside]

    def draw(self, prompts: Sequence[tuple[AddBox | None, Sequence[AddPoint]]]) -> np.ndarray:
        """Draw the box and the clicks of N images.

        Args:
            prompts: Box and clicks of each.

        Returns:
            N x S x S x 3 uint8, 0 or 255: discs at positive and negative clicks, the filled box.
        """
        side = self.side
        maps = np.zeros((len(prompts), side, side, 3), np.uint8)
        clicks = [
            (i, int(p.y * side), int(p.x * side), 0 if p.positive else 1)
            for i, (_, points) in enumerate(prompts)
            for p in points
        ]
        if clicks:
            slot, y, x, channel = (column[:, None] for column in np.array(clicks).T)
            rows, columns = np.broadcast_arrays(y + self._disc[0], x + self._disc[1])
            inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
            slots, channels = (np.broadcast_to(a, rows.shape)[inside] for a in (slot, channel))
            maps[slots, rows[inside], columns[inside], channels] = 255
        boxes = [(i, box) for i, (box, _) in enumerate(prompts) if box is not None]
        if boxes:
            centres = (np.arange(side) + 0.5) / side
            edges = np.array([(b.x1, b.y1, b.x2, b.y2) for _, b in boxes])[:, :, None]
            # At least the pixel that holds the corner, however thin the box.
            half = 0.5 / side
            across = (centres >= edges[:, 0] - half) & (centres <= edges[:, 2] + half)
            down = (centres >= edges[:, 1] - half) & (centres <= edges[:, 3] + half)
            filled = down[:, :, None] & across[:, None, :]
            maps[[i for i, _ in boxes], :, :, 2] = filled.view(np.uint8) * np.uint8(255)
        return maps
