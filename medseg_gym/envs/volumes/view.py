"""The view of volumes: the slice in view and an overview as arrays, integer rows as prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from gymnasium import spaces
from PIL import Image

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.envs.views.prompt_maps import PromptMaps
from medseg_gym.envs.views.protocol import Observations, Reading
from medseg_gym.envs.views.rows import RowView
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.episodes.volumes import VolumeEpisode, VolumeState
from medseg_gym.errors import MedSegError
from medseg_gym.prompts.volumes import VolumeCodec


class VolumeView(RowView):
    """Shows volume episodes as arrays; the truth is never among them.

    Args:
        targets: Vocabulary; `target` is 1 + its index, 0 for a text that is not in it.
        options: Of the environment.

    Raises:
        MedSegError: A side out of range.
    """

    image_keys: ClassVar[tuple[str, ...]] = ("image", "overview")

    def __init__(self, targets: Sequence[str], options: VolumeOptions) -> None:
        self.side, self.overview_side = int(options.image_size), int(options.overview_size)
        for name in ("image_size", "overview_size"):
            if not 8 <= getattr(options, name) <= 4096:
                raise MedSegError(f"{name} must be in 8..4096 pixels, got {getattr(options, name)}")
        self.codec = VolumeCodec(options.slices, options.bins, options.tools)
        self.targets = tuple(targets)
        self._target_index = {text: i + 1 for i, text in enumerate(self.targets)}
        self._maps = PromptMaps(self.side)
        self._overviews: WeakKeyDictionary[VolumeCase, np.ndarray] = WeakKeyDictionary()

    @property
    def observation_space(self) -> spaces.Dict:
        """Observation space of one slot."""
        side, overview = self.side, self.overview_side
        return spaces.Dict(
            {
                "image": spaces.Box(0, 255, (side, side, 3), np.uint8),
                "mask": spaces.Box(0, 255, (side, side, 1), np.uint8),
                "prompts": spaces.Box(0, 255, (side, side, 3), np.uint8),
                "overview": spaces.Box(0, 255, (overview, overview, 3), np.uint8),
                "overview_mask": spaces.Box(0, 255, (overview, overview, 3), np.uint8),
                "slice": spaces.Box(0, 1, (1,), np.float32),
                "target": spaces.Discrete(len(self.targets) + 1),
                "steps_left": spaces.Box(0, 1, (1,), np.float32),
            }
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        return {
            "slices": self.codec.slices,
            "bins": self.codec.bins,
            "image_size": self.side,
            "overview_size": self.overview_side,
            "tools": list(self.tools),
        }

    def read(self, actions: Any, episodes: Sequence[VolumeEpisode]) -> list[Reading]:
        """Prompts of (n, 6) integer rows, on the volumes that the n episodes play.

        Raises:
            PromptError: A wrong shape or dtype, or a value outside the action space.
        """
        depths = [episode.case.depth for episode in episodes]
        return [Reading(prompt) for prompt in self.codec.decode(np.asarray(actions), depths)]

    def observe(self, episodes: Sequence[VolumeEpisode]) -> Observations:
        """Observations of n episodes as fresh arrays with a leading axis n."""
        in_view = [episode.state.slices.get(episode.view) for episode in episodes]
        targets = [self._target_index.get(e.case.target, 0) for e in episodes]
        return {
            "image": np.stack([squash(e.case.rgb(e.view), self.side) for e in episodes]),
            "mask": _grey([sample(e.slice_mask(e.view), self.side) for e in episodes])[..., None],
            "prompts": self._maps.draw(
                [(None, ()) if one is None else (one.box, one.points) for one in in_view]
            ),
            "overview": np.stack([self.overview(e.case) for e in episodes]),
            "overview_mask": np.stack([self.overview_mask(e.case, e.state) for e in episodes]),
            "slice": np.array([[(e.view + 0.5) / e.case.depth] for e in episodes], np.float32),
            "target": np.array(targets, dtype=np.int64),
            "steps_left": np.array([[e.steps_left / e.max_steps] for e in episodes], np.float32),
        }

    def overview(self, case: VolumeCase) -> np.ndarray:
        """Maximum projections along slices, rows and columns as channels, O x O x 3 uint8."""
        if case not in self._overviews:
            grey = case.image if case.image.ndim == 3 else case.image.max(axis=3)
            projections = [squash(grey.max(axis=axis), self.overview_side) for axis in range(3)]
            self._overviews[case] = np.stack(projections, axis=-1)
        return self._overviews[case]

    def overview_mask(self, case: VolumeCase, state: VolumeState) -> np.ndarray:
        """The same projections of a mask, O x O x 3 uint8, 0 or 255."""
        side = self.overview_side
        along = np.zeros((case.height, case.width), bool)
        rows = np.zeros((case.depth, case.width), bool)
        columns = np.zeros((case.depth, case.height), bool)
        for index, one in state.slices.items():
            if not one.pixels:
                continue
            mask = one.mask(case.width)
            along |= mask
            rows[index], columns[index] = mask.any(axis=0), mask.any(axis=1)
        return np.moveaxis(_grey([sample(mask, side) for mask in (along, rows, columns)]), 0, -1)


def squash(image: np.ndarray, side: int) -> np.ndarray:
    """Squash (h, w) or (h, w, 3) uint8 to a square."""
    square = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(square.resize((side, side), Image.Resampling.BILINEAR))


def sample(mask: np.ndarray, side: int) -> np.ndarray:
    """Sample a mask at the centres of a square's pixels."""
    rows, columns = (((np.arange(side) + 0.5) * n / side).astype(int) for n in mask.shape)
    sampled: np.ndarray = mask[rows[:, None], columns]
    return sampled


def _grey(masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(masks).view(np.uint8) * np.uint8(255)
