"""Prompts drawn as maps, for several grids at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medseg_gym.backbones.batching.collate import (
    BOTTOM_RIGHT,
    NEGATIVE,
    POSITIVE,
    TOP_LEFT,
    TokenBatch,
)
from medseg_gym.backbones.families.pocket.encoder import SIDE

MAPS = 10
WIDTHS = (5.0, 22.0)  # of the bumps at clicks, pixels


def draw_maps(batch: TokenBatch, sides: Sequence[int]) -> list[torch.Tensor]:
    """Draw prompts on grids, each B x (MAPS + 1) x side x side.

    Channels: narrow and wide bumps at positive clicks, the same at negative ones, inside of the
    box with soft borders, position between its sides along x and along y (-1.5..1.5), whether
    there is a box, whether there is a click, how near the nearest side is; and one of zeros,
    where the probability of the mask input goes.

    Args:
        batch: Prompts of B rows.
        sides: Of the grids, cells.
    """
    place = batch.coords + 0.5  # collate leaves the half to whoever reads it
    # Whatever depends on one axis is computed for the cells of all grids together.
    cells = torch.cat([_centres(side, place) for side in sides])
    apart = (cells - place[..., None]) ** 2  # B N 2 cells
    kinds = [batch.labels == kind for kind in (POSITIVE, NEGATIVE)]
    # The nearest click makes the highest bump, so only its distance is needed.
    rows = [apart[:, :, 1].masked_fill(~kind[:, :, None], torch.inf) for kind in kinds]
    first_corner = (batch.labels == TOP_LEFT)[..., None]
    last_corner = (batch.labels == BOTTOM_RIGHT)[..., None]
    low, high = (place * first_corner).sum(1), (place * last_corner).sum(1)  # B x 2; 0 if none
    boxed = first_corner.any(1)[..., None].to(place.dtype)  # B x 1 x 1
    half = ((high - low) / 2).clamp(min=1.0)[..., None]
    offset = (cells - ((low + high) / 2)[..., None]) / half  # B x 2 x cells
    edge = (1 - offset.abs()) * half  # pixels to the nearer side, negative outside
    inside = torch.sigmoid(edge * 0.5)
    across = inside[:, 0] * boxed[:, 0]
    near = torch.exp(-((edge / 8.0) ** 2))
    offset = offset.clamp(-1.5, 1.5) * boxed
    clicked = (kinds[0] | kinds[1]).any(1)[:, None, None].to(place.dtype)
    grids, start = [], 0
    for side in sides:
        part = slice(start, start + side)
        start += side
        maps = place.new_zeros(len(place), MAPS + 1, side, side)
        for first, clicks in zip((0, 2), rows, strict=True):
            nearest = (clicks[:, :, part, None] + apart[:, :, 0, None, part]).amin(dim=1)
            for channel, width in enumerate(WIDTHS, first):
                torch.mul(nearest, -0.5 / width**2, out=maps[:, channel]).exp_()
        maps[:, 4] = inside[:, 1, part, None] * across[:, None, part]
        maps[:, 5] = offset[:, 0, None, part]
        maps[:, 6] = offset[:, 1, part, None]
        maps[:, 7] = boxed
        maps[:, 8] = clicked
        maps[:, 9] = torch.maximum(near[:, 1, part, None], near[:, 0, None, part]) * maps[:, 4]
        grids.append(maps)
    return grids


def _centres(side: int, like: torch.Tensor) -> torch.Tensor:
    """Return the centres of `side` cells along an axis of the encoder's frame, pixels."""
    numbers = torch.arange(side, device=like.device, dtype=like.dtype)
    return (numbers + 0.5) * (SIDE / side)
