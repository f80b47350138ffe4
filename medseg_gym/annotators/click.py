"""The oracle click: the deepest point of the worse error, as RITM simulates a user.

Sofiiuk et al., "Reviving iterative training with mask guidance for interactive segmentation",
arXiv 2102.06583, section 3.3; MedSAM-Agent simulates its clicks alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from medseg_gym.annotators.scripted import OracleScript
from medseg_gym.episodes import Episode
from medseg_gym.episodes.masks import group_by_shape
from medseg_gym.prompts import AddPoint, Prompt, Stop


def deepest_pixel(
    error: np.ndarray, avoid: Iterable[tuple[int, int]] = ()
) -> tuple[float, tuple[int, int]]:
    """The pixel of an error region that is farthest from its border.

    Everything beyond the image counts as outside the region.

    Args:
        error: (H, W) bool.
        avoid: Pixels (row, column) that may not be chosen.

    Returns:
        Depth in pixels and (row, column); depth 0 if no pixel may be chosen.
    """
    rows, columns = np.flatnonzero(error.any(axis=1)), np.flatnonzero(error.any(axis=0))
    if not len(rows):
        return 0.0, (0, 0)
    # Distances within a region do not change when the empty rest is cut off, save one pixel.
    top, left = int(rows[0]), int(columns[0])
    region = np.pad(error[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    depth = distance_transform_edt(region)
    for row, column in avoid:
        y, x = row - top + 1, column - left + 1
        if 0 <= y < depth.shape[0] and 0 <= x < depth.shape[1]:
            depth[y, x] = 0
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    return float(depth[y, x]), (y + top - 1, x + left - 1)


def next_click(
    mask: np.ndarray, truth: np.ndarray, clicked: Iterable[tuple[int, int]] = ()
) -> AddPoint | None:
    """Where a careful user clicks next.

    Args:
        mask: (H, W) bool, now.
        truth: (H, W) bool.
        clicked: Pixels (row, column) clicked before; none is clicked twice.

    Returns:
        A positive click if what is missing is strictly deeper than what is too much, else a
        negative one; None if there is no error left to click.
    """
    clicked = list(clicked)
    missing = deepest_pixel(truth & ~mask, clicked)
    surplus = deepest_pixel(mask & ~truth, clicked)
    positive = missing[0] > surplus[0]
    depth, (row, column) = missing if positive else surplus
    if depth == 0:
        return None
    height, width = truth.shape
    return AddPoint((column + 0.5) / width, (row + 0.5) / height, positive)


def clicked_pixels(episode: Episode) -> list[tuple[int, int]]:
    """Pixels (row, column) clicked so far, taken-back ones included."""
    height, width = episode.case.height, episode.case.width
    return [
        (int(step.prompt.y * height), int(step.prompt.x * width))
        for step in episode.steps
        if isinstance(step.prompt, AddPoint)
    ]


def masks_to_host(episodes: Sequence[Episode]) -> list[np.ndarray]:
    """Masks now, (H, W) bool, with one transfer per distinct size."""
    masks = [episode.state.mask for episode in episodes]
    found: dict[int, np.ndarray] = {}
    for members in group_by_shape(masks):
        stacked = torch.stack([masks[i] for i in members]).cpu().numpy()
        found.update(zip(members, stacked, strict=True))
    return [found[i] for i in range(len(masks))]


class OracleClick(OracleScript):
    """Clicks on the worst error until the steps are used up; stops when none is left."""

    name = "oracle-click"

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """The next click of every open slot."""
        return [
            next_click(mask, episode.case.mask, clicked_pixels(episode)) or Stop()
            for mask, episode in zip(masks_to_host(episodes), episodes, strict=True)
        ]
