"""Simulated clicks: the deepest point of the worse error, as RITM simulates a user.

Sofiiuk et al., "Reviving iterative training with mask guidance for interactive segmentation",
arXiv 2102.06583, section 3.3; MedSAM-Agent simulates its clicks alike. `ErrorClicks.draw` is what
to try where that one does not help.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from medseg_gym.annotators.scripted import OracleScript
from medseg_gym.episodes import Episode
from medseg_gym.prompts import AddPoint, Prompt, Stop
from medseg_gym.prompts.grid import to_cell

Pixel = tuple[int, int]
"""Row and column."""


def depth_map(error: np.ndarray) -> np.ndarray:
    """Distance of every pixel of a region to the nearest one outside it.

    Everything beyond the image counts as outside.

    Args:
        error: (H, W) bool.

    Returns:
        (H, W) float64, in pixels; 0 outside the region.
    """
    depth = np.zeros(error.shape)
    crop = _crop(error)
    if crop is not None:
        # Distances within a region do not change when the empty rest is cut off.
        depth[crop] = distance_transform_edt(np.pad(error[crop], 1))[1:-1, 1:-1]
    return depth


def depth_bound(error: np.ndarray) -> float:
    """A depth that no pixel of a (H, W) bool region exceeds, at a fraction of the cost.

    Depth d needs d pixels on every side, and a disc of radius d - sqrt(1/2) that the region's
    pixels cover.
    """
    crop = _crop(error)
    if crop is None:
        return 0.0
    height, width = (side.stop - side.start for side in crop)
    disc = math.sqrt(np.count_nonzero(error) / math.pi) + math.sqrt(0.5)
    bound: float = min((height + 1) / 2, (width + 1) / 2, disc)
    return bound


def deepest_pixel(error: np.ndarray, avoid: Iterable[Pixel] = ()) -> tuple[float, Pixel]:
    """The pixel of an error region that is farthest from its border.

    Everything beyond the image counts as outside the region.

    Args:
        error: (H, W) bool.
        avoid: Pixels that may not be chosen.

    Returns:
        Depth in pixels and the pixel; depth 0 if no pixel may be chosen.
    """
    depth = _forget(depth_map(error), avoid)
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return float(depth[row, column]), (row, column)


def _crop(region: np.ndarray) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _forget(depth: np.ndarray, pixels: Iterable[Pixel]) -> np.ndarray:
    for row, column in pixels:
        if 0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]:
            depth[row, column] = 0
    return depth


class ErrorClicks:
    """Clicks on the error between a mask and the truth.

    What is missing and what is too much are measured each at most once, and only if need be.

    Args:
        mask: (H, W) bool, now.
        truth: (H, W) bool.
    """

    def __init__(self, mask: np.ndarray, truth: np.ndarray) -> None:
        self._shape = truth.shape
        crop = _crop(mask ^ truth)
        self._crop = (slice(0, 1), slice(0, 1)) if crop is None else crop
        inside, wanted = mask[self._crop], truth[self._crop]
        self._errors = {True: wanted & ~inside, False: inside & ~wanted}
        self._depths: dict[bool, np.ndarray] = {}

    def deepest(self, clicked: Iterable[Pixel] = ()) -> AddPoint | None:
        """The click of RITM's rule.

        Args:
            clicked: Pixels clicked before; none is clicked twice.

        Returns:
            A positive click if what is missing is strictly deeper than what is too much, else a
            negative one; None if there is no error left to click.
        """
        avoid = self._shifted(clicked)
        missing, surplus = depth_bound(self._errors[True]), depth_bound(self._errors[False])
        # The region that may be deeper goes first; often the other cannot win and is not measured.
        if missing > surplus:
            missing = self._depth(True, avoid).max()
            if surplus >= missing:
                surplus = self._depth(False, avoid).max()
        else:
            surplus = self._depth(False, avoid).max()
            if missing > surplus:
                missing = self._depth(True, avoid).max()
        positive = bool(missing > surplus)
        depth = self._depth(positive, avoid)
        place = int(depth.argmax())
        return self._click(place, positive) if depth.flat[place] else None

    def draw(self, generator: np.random.Generator, clicked: Iterable[Pixel]) -> AddPoint | None:
        """Another click, for when the deepest has been tried.

        A pixel of either error, drawn with a probability that goes with its depth: a slip of the
        segmenter is met near its middle, and every part of the error has its turn.

        Args:
            generator: One draw, if there is a pixel left.
            clicked: Pixels clicked or tried before; none is clicked twice.

        Returns:
            Positive on what is missing, negative on what is too much; None if no pixel is left.
        """
        avoid = self._shifted(clicked)
        missing = self._depth(True, avoid)
        # The two regions do not overlap, so one map holds both.
        total = (missing + self._depth(False, avoid)).ravel().cumsum()
        if total[-1] == 0:
            return None
        # The draw lies below the total, so the first sum above it is that of a pixel with depth.
        place = int(np.searchsorted(total, generator.random() * total[-1], side="right"))
        return self._click(place, bool(missing.flat[place]))

    def _depth(self, positive: bool, avoid: Sequence[Pixel]) -> np.ndarray:
        if positive not in self._depths:
            self._depths[positive] = depth_map(self._errors[positive])
        return _forget(self._depths[positive], avoid)

    def _shifted(self, clicked: Iterable[Pixel]) -> list[Pixel]:
        top, left = (side.start for side in self._crop)
        return [(row - top, column - left) for row, column in clicked]

    def _click(self, place: int, positive: bool) -> AddPoint:
        row, column = divmod(place, self._errors[positive].shape[1])
        top, left = (side.start for side in self._crop)
        height, width = self._shape
        return AddPoint((column + left + 0.5) / width, (row + top + 0.5) / height, positive)


def next_click(
    mask: np.ndarray, truth: np.ndarray, clicked: Iterable[Pixel] = ()
) -> AddPoint | None:
    """Return the click of a careful user; see `ErrorClicks.deepest`."""
    return ErrorClicks(mask, truth).deepest(clicked)


def click_pixels(click: AddPoint, shape: tuple[int, ...], bins: int) -> list[Pixel]:
    """The pixel under a click, and those that a grid of `bins` cells cannot tell from it."""
    axes = []
    for value, size in ((click.y, shape[0]), (click.x, shape[1])):
        cell = to_cell(value, bins)
        near = range(
            max(0, math.floor(cell * size / bins) - 1),
            min(size, math.ceil((cell + 1) * size / bins) + 1),
        )
        same = {pixel for pixel in near if to_cell((pixel + 0.5) / size, bins) == cell}
        axes.append(sorted(same | {min(int(value * size), size - 1)}))
    return [(row, column) for row in axes[0] for column in axes[1]]


def clicked_pixels(episode: Episode, bins: int) -> list[Pixel]:
    """Pixels clicked so far, taken-back ones included; see `click_pixels`."""
    return [
        pixel
        for step in episode.steps
        if isinstance(step.prompt, AddPoint)
        for pixel in click_pixels(step.prompt, episode.case.mask.shape, bins)
    ]


def masks_to_host(episodes: Sequence[Episode]) -> list[np.ndarray]:
    """Masks now, (H, W) bool, in a single transfer."""
    if not episodes:
        return []
    masks = [episode.state.mask for episode in episodes]
    if masks[0].device.type == "cpu":  # nothing to transfer, nothing to gather
        return [mask.numpy() for mask in masks]
    flat = torch.cat([mask.reshape(-1) for mask in masks]).cpu().numpy()
    ends = np.cumsum([mask.numel() for mask in masks])
    pieces = np.split(flat, ends[:-1])
    return [piece.reshape(mask.shape) for piece, mask in zip(pieces, masks, strict=True)]


def worst_error_clicks(episodes: Sequence[Episode], bins: int) -> list[Prompt]:
    """The next click of each episode; stop where there is no error left to click."""
    return [
        next_click(mask, episode.case.mask, clicked_pixels(episode, bins)) or Stop()
        for mask, episode in zip(masks_to_host(episodes), episodes, strict=True)
    ]


class OracleClick(OracleScript):
    """Clicks on the worst error until the steps are used up; stops when none is left."""

    name = "oracle-click"
    needs = ("positive_point", "negative_point")

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """The next click of every open slot."""
        return worst_error_clicks(episodes, self.codec.bins)
