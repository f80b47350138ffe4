"""Labels of states: an annotator's actions, with a likelihood of every place.

One pixel says little: any place well inside the error region would have done, and an annotator's
choice among them is decided by single pixels that a network cannot see. So a click's place is the
whole region, each place weighed by its depth, and a box's corner a blurred spot. Both keep the
annotator's choice as the likeliest place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from medseg_agents.arrays.distribution import place_maps
from medseg_gym.annotators.click import depth_map, masks_to_host
from medseg_gym.episodes import Episode
from medseg_gym.prompts import AddPoint, ArrayCodec
from medseg_gym.prompts.grid import to_cell


@dataclass(frozen=True)
class Labels:
    """Labels of n states by an annotator.

    Args:
        actions: n x 5 int64.
        clicks: n x C x C uint8: how good a place each cell is for the click, 255 the best; 0
            everywhere for other tools.
        truth: n x C x C uint8: share of each cell that the target covers, 255 all.
    """

    actions: np.ndarray
    clicks: np.ndarray
    truth: np.ndarray


def make_labels(
    actions: np.ndarray,
    episodes: Sequence[Episode],
    codec: ArrayCodec,
    cells: int,
    sharpness: float,
) -> Labels:
    """Turn an annotator's actions into labels.

    Args:
        actions: n x 5, of the annotator.
        episodes: Whose states they are for, n.
        codec: Of the view.
        cells: C, side of the grid of places.
        sharpness: See `DaggerConfig.click_sharpness`.
    """
    clicks = np.zeros((len(episodes), cells, cells), np.uint8)
    truth = np.zeros_like(clicks)
    masks = masks_to_host(episodes)
    prompts = codec.decode(actions)
    for row, (episode, mask, prompt) in enumerate(zip(episodes, masks, prompts, strict=True)):
        wanted = episode.case.mask
        truth[row] = cover_shares(wanted, cells)
        if isinstance(prompt, AddPoint):
            error = wanted & ~mask if prompt.positive else mask & ~wanted
            likelihood = pool(depth_map(error) ** sharpness * error, cells)
            if not likelihood.any():  # an annotator of another rule
                likelihood[to_cell(prompt.y, cells), to_cell(prompt.x, cells)] = 1
            clicks[row] = np.rint(255 * likelihood / likelihood.max())
    return Labels(actions, clicks, truth)


def cover_shares(mask: np.ndarray, cells: int) -> np.ndarray:
    """Return the share of each cell that a mask covers, C x C uint8, 255 all.

    Args:
        mask: H x W bool.
        cells: C.
    """
    shares = pool(mask, cells) / pool(np.ones_like(mask), cells).clip(1)
    rounded: np.ndarray = np.rint(255 * shares).astype(np.uint8)
    return rounded


def pool(values: np.ndarray, cells: int) -> np.ndarray:
    """Sum an (H, W) array over the cells of a C x C grid."""
    height, width = values.shape
    down, across = _membership(height, cells), _membership(width, cells)
    pooled: np.ndarray = down.T @ values.astype(np.float32) @ across
    return pooled


@lru_cache(maxsize=64)
def _membership(size: int, cells: int) -> np.ndarray:
    """Pixels x cells, 1 where a pixel's centre lies in a cell."""
    member = np.zeros((size, cells), np.float32)
    member[np.arange(size), ((np.arange(size) + 0.5) / size * cells).astype(int)] = 1
    return member


def place_targets(
    actions: torch.Tensor,
    clicks: torch.Tensor,
    tools: Sequence[str],
    bins: int,
    blur: float,
) -> torch.Tensor:
    """Distributions over cells for the maps of each action's tool.

    Args:
        actions: B x 5 int64.
        clicks: B x C x C uint8, see `Labels`.
        tools: Of the view.
        bins: Of the view.
        blur: See `DaggerConfig.corner_blur`.

    Returns:
        B x P x C^2 float32; maps of other tools hold numbers of no meaning.
    """
    cells = clicks.shape[-1]
    region = clicks.flatten(1).float()
    region = region / region.sum(1, keepdim=True).clamp(min=1)
    axis = torch.arange(cells, device=actions.device)
    maps = []
    for tool, column in place_maps(tools):
        if tool != "box":
            maps.append(region)
            continue
        sides = []
        for bin_ in (actions[:, column + 1], actions[:, column]):
            at = (2 * bin_ + 1) * cells // (2 * bins)
            away = (axis - at[:, None]).float()
            near = torch.exp(-away.square() / (2 * blur**2)) if blur else (away == 0).float()
            sides.append(near / near.sum(1, keepdim=True))
        maps.append((sides[0][:, :, None] * sides[1][:, None, :]).flatten(1))
    return torch.stack(maps, 1)
