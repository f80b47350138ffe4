"""The array view: episodes as observation arrays, integer rows as prompts."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from gymnasium import spaces
from PIL import Image

from medseg_gym.cases import Case
from medseg_gym.episodes import Episode
from medseg_gym.episodes.masks import group_by_shape
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import TOOL_CALL_BINS, TOOLS, ArrayCodec

Observations = dict[str, np.ndarray]


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
        if not 8 <= image_size <= 4096:
            raise MedSegError(f"image_size must be in 8..4096 pixels, got {image_size}")
        self.side = int(image_size)
        self.codec = ArrayCodec(bins, tools)
        self.targets = tuple(targets)
        self._target_index = {text: i + 1 for i, text in enumerate(self.targets)}
        self._pictures: WeakKeyDictionary[Case, np.ndarray] = WeakKeyDictionary()
        radius = max(1, round(self.side / 64))
        dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        inside = dx * dx + dy * dy <= radius * radius + radius // 2
        self._disc = dy[inside], dx[inside]

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

    def observe(self, episodes: Sequence[Episode]) -> Observations:
        """Observations of n episodes as fresh arrays with a leading axis n."""
        left = [[e.steps_left / e.max_steps] for e in episodes]
        return {
            "image": np.stack([self._picture(e.case) for e in episodes]),
            "mask": self._masks(episodes),
            "prompts": self._prompts(episodes),
            "target": np.array(
                [self._target_index.get(e.case.target, 0) for e in episodes], dtype=np.int64
            ),
            "steps_left": np.array(left, dtype=np.float32),
        }

    def _picture(self, case: Case) -> np.ndarray:
        """S x S x 3 uint8, made once per case and kept as long as the case is."""
        if case not in self._pictures:
            square = Image.fromarray(case.image).resize(
                (self.side, self.side), Image.Resampling.BILINEAR
            )
            self._pictures[case] = np.asarray(square)
        return self._pictures[case]

    def _masks(self, episodes: Sequence[Episode]) -> np.ndarray:
        """Masks, N x S x S x 1 uint8: each mask sampled at the centres of the square's pixels."""
        masks = [episode.state.mask for episode in episodes]
        groups = group_by_shape(masks)
        parts = []
        for members in groups:
            stacked = torch.stack([masks[i] for i in members])
            rows, columns = (
                ((torch.arange(self.side, device=stacked.device) + 0.5) * n / self.side).long()
                for n in stacked.shape[1:]
            )
            parts.append(stacked[:, rows[:, None], columns])
        sampled = torch.cat(parts).to("cpu").numpy()
        found = np.empty_like(sampled)
        found[[i for members in groups for i in members]] = sampled
        return (found.view(np.uint8) * np.uint8(255))[..., None]

    def _prompts(self, episodes: Sequence[Episode]) -> np.ndarray:
        """Maps, N x S x S x 3 uint8: discs at positive and negative clicks, the filled box."""
        side = self.side
        maps = np.zeros((len(episodes), side, side, 3), np.uint8)
        clicks = [
            (i, int(p.y * side), int(p.x * side), 0 if p.positive else 1)
            for i, episode in enumerate(episodes)
            for p in episode.state.points
        ]
        if clicks:
            slot, y, x, channel = (column[:, None] for column in np.array(clicks).T)
            rows, columns = np.broadcast_arrays(y + self._disc[0], x + self._disc[1])
            inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
            slots, channels = (np.broadcast_to(a, rows.shape)[inside] for a in (slot, channel))
            maps[slots, rows[inside], columns[inside], channels] = 255
        boxes = [(i, e.state.box) for i, e in enumerate(episodes) if e.state.box is not None]
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
