"""The contact sheet of a scan: its slices with the largest masks."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_agents.evaluation.single_image import draw_step
from medseg_gym.envs.rendering import add_caption, draw_case
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.storage.atomic_write import atomic_path

SHOWN = 12
"""Slices of a sheet."""

SIDE = 256
"""Longer edge of a tile, in pixels."""


class Tiles:
    """Keeps the slices with the largest masks, drawn.

    Args:
        scored: Show the truth's outline and Dice.
    """

    def __init__(self, scored: bool) -> None:
        self.scored = scored
        self._largest: list[tuple[int, int, np.ndarray]] = []

    def add_slice(self, episode: Episode, index: int) -> None:
        """Take a slice that was played as an image of its own."""
        if self._wants(episode.state.pixels, index):
            steps = len(episode.steps)
            drawn = draw_step(episode, steps, SIDE, self.scored, f"slice {index}  ")
            self._push(episode.state.pixels, index, drawn)

    def add_volume(self, episode: VolumeEpisode) -> None:
        """Take all slices of a volume that was played as a whole."""
        case = episode.case
        score = f"  3D Dice {episode.dice:.3f}" if self.scored else ""
        for index in range(case.depth):
            one = episode.state.slices.get(index)
            pixels = one.pixels if one else 0
            if not self._wants(pixels, index):
                continue
            box, points = (one.box, one.points) if one else (None, ())
            truth = case.mask[index] if self.scored else None
            mask = episode.slice_mask(index)
            drawn = draw_case(case.rgb(index), mask, truth, box, points, SIDE)
            lines = (case.target, f"slice {index}  step {len(episode.steps)}{score}")
            self._push(pixels, index, add_caption(drawn, lines))

    def _wants(self, pixels: int, index: int) -> bool:
        return len(self._largest) < SHOWN or (pixels, -index) > self._largest[0][:2]

    def _push(self, pixels: int, index: int, drawn: np.ndarray) -> None:
        push = heapq.heappush if len(self._largest) < SHOWN else heapq.heapreplace
        push(self._largest, (pixels, -index, drawn))

    def write(self, file: Path) -> None:
        """Write the sheet as PNG, slices in order."""
        tiles = [drawn for _, _, drawn in sorted(self._largest, key=lambda one: -one[1])]
        columns = min(4, len(tiles))
        height, width, _ = np.max([tile.shape for tile in tiles], axis=0)
        rows = -(-len(tiles) // columns)
        sheet = np.full((rows * height, columns * width, 3), 24, np.uint8)
        for number, tile in enumerate(tiles):
            top, left = number // columns * height, number % columns * width
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        with atomic_path(file) as unfinished:
            Image.fromarray(sheet).save(unfinished, format="png")
