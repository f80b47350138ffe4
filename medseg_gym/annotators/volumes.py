"""Oracles of volumes: simulated experts who see the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import find_objects, label

from medseg_gym.annotators.box import tight_box, widen
from medseg_gym.annotators.click import click_pixels, deepest_pixel
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.prompts import AddPoint, Stop
from medseg_gym.prompts.volumes import Propagate, SlicePrompt, VolumeCodec, VolumePrompt


class VolumeOracle(ABC):
    """Names one prompt per slot of `MedSegVolume-v0`.

    Args:
        codec: Of the view it plays through.
    """

    name = "volume"
    env_id = "MedSegVolume-v0"
    sees_truth = True

    def __init__(self, codec: VolumeCodec) -> None:
        self.codec = codec

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes; nothing is kept between steps."""
        del slots, generators

    def act(
        self, observations: Mapping[str, Any], episodes: Sequence[VolumeEpisode | None]
    ) -> np.ndarray:
        """Choose actions, (n, 6) int64, for every slot whose episode is not over."""
        actions = np.zeros((len(episodes), 6), np.int64)
        for slot, episode in enumerate(episodes):
            if episode is not None and not episode.done:
                actions[slot] = self.codec.encode(self.choose(episode), episode.case.depth)
        return actions

    @abstractmethod
    def choose(self, episode: VolumeEpisode) -> VolumePrompt:
        """The next prompt of an episode."""

    def reachable(self, depth: int) -> list[int]:
        """Slices of a volume that an action can name, ascending."""
        return sorted({self.codec.slice_of(cell, depth) for cell in range(self.codec.slices)})

    def box_on(self, episode: VolumeEpisode, index: int) -> SlicePrompt | None:
        """Box round the truth in a slice; None where it has none there."""
        box = tight_box(episode.case.mask[index])
        return None if box is None else SlicePrompt(index, widen(box, self.codec.bins))


class KeySliceBox(VolumeOracle):
    """One box round the truth, on the slice that shows most of it; propagate; stop."""

    name = "oracle-key-slice"

    def choose(self, episode: VolumeEpisode) -> VolumePrompt:
        """Box, propagate, stop."""
        taken = len(episode.steps)
        if taken == 0:
            areas = episode.case.mask.sum(axis=(1, 2))
            key = max(self.reachable(episode.case.depth), key=lambda index: int(areas[index]))
            return self.box_on(episode, key) or Stop()
        return Propagate() if taken == 1 else Stop()


class KeySliceClicks(KeySliceBox):
    """The same, then a click on the largest error in 3D and propagate, until the steps are used."""

    name = "oracle-key-slice-clicks"

    def choose(self, episode: VolumeEpisode) -> VolumePrompt:
        """Box, propagate, click, propagate, click, ..."""
        taken = len(episode.steps)
        if taken < 2:
            return super().choose(episode)
        if taken % 2:
            return Propagate()
        return self.next_click(episode) or Stop()

    def next_click(self, episode: VolumeEpisode) -> SlicePrompt | None:
        """Click on the largest piece of the error.

        The error's largest 26-connected component is met in the slice that shows most of it, at
        the pixel farthest from its border there; positive where the target is missing. Only slices
        that an action can name count, and no pixel is clicked twice.

        Returns:
            The click; None if there is no error left.
        """
        case, codec = episode.case, self.codec
        mask = episode.mask()
        error = np.zeros_like(mask)
        slices = self.reachable(case.depth)
        error[slices] = mask[slices] ^ case.mask[slices]
        if not error.any():
            return None
        crop = find_objects(error.astype(np.uint8))[0]
        parts, count = label(error[crop], np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        for part in (np.argsort(-sizes, kind="stable") + 1).tolist():
            inside = np.zeros_like(error)
            inside[crop] = parts == part
            areas = inside.sum(axis=(1, 2))
            index = int(areas.argmax())
            clicked = [
                pixel
                for step in episode.steps
                if isinstance(step.prompt, SlicePrompt)
                and step.prompt.slice == index
                and isinstance(step.prompt.prompt, AddPoint)
                for pixel in click_pixels(step.prompt.prompt, inside.shape[1:], codec.bins)
            ]
            depth, (row, column) = deepest_pixel(inside[index], clicked)
            if depth > 0:
                x, y = (column + 0.5) / case.width, (row + 0.5) / case.height
                missing = bool(case.mask[index, row, column])
                return SlicePrompt(index, AddPoint(x, y, positive=missing))
        return None


class KeySliceBoxes(KeySliceClicks):
    """As `KeySliceClicks`, but what follows is a box round the truth on the slice that errs most.

    For segmenters that were never trained for clicks. Where that slice has none of the target, one
    negative click says so; a slice is corrected once.
    """

    name = "oracle-key-slice-boxes"

    def next_click(self, episode: VolumeEpisode) -> SlicePrompt | None:
        """Box on the slice with the most wrong pixels among those without a box of their own."""
        case, mask = episode.case, episode.mask()
        own = set(episode.state.prompted)
        free = [index for index in self.reachable(case.depth) if index not in own]
        wrong = {i: int(np.count_nonzero(mask[i] ^ case.mask[i])) for i in free}
        index = max(wrong, key=lambda i: wrong[i], default=-1)
        if not wrong.get(index):
            return None
        if (box := self.box_on(episode, index)) is not None:
            return box
        _, (row, column) = deepest_pixel(mask[index], [])
        x, y = (column + 0.5) / case.width, (row + 0.5) / case.height
        return SlicePrompt(index, AddPoint(x, y, positive=False))


class EverySliceBox(VolumeOracle):
    """A box round the truth on every slice that has some, then stop: the bound, and its cost."""

    name = "oracle-every-slice"

    def choose(self, episode: VolumeEpisode) -> VolumePrompt:
        """The next slice from below."""
        boxed = set(episode.state.prompted)
        for index in self.reachable(episode.case.depth):
            if index not in boxed and (prompt := self.box_on(episode, index)):
                return prompt
        return Stop()
