"""A U-net that says from the image alone which cells each target covers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from medseg_agents.arrays.blocks import Block, level_widths, make_stem, place_grid

PLANES = 4
"""Planes that `outline_planes` returns."""


class Localizer(nn.Module):
    """Image -> logits of what each target covers, all targets in one pass.

    Nothing in it depends on the target before its last layer, so one pass of an image learns from
    all the targets that are known in it.

    Args:
        side: S, of the observed square.
        targets: How many there are, the unknown one included.
        patch: As of the whole network, see `NetworkSize`.
        width: Channels at its finest level.
        levels: Of resolution.
    """

    def __init__(self, side: int, targets: int, patch: int, width: int, levels: int) -> None:
        super().__init__()
        wide = level_widths(width, levels)
        self.split = max(1, patch // 2)
        self.cells = side // patch * self.split
        self.stem = make_stem(5, wide[0], patch)
        self.down = nn.ModuleList(Block(a, b, stride=2) for a, b in pairwise(wide))
        self.deep = Block(wide[-1], wide[-1])
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(list(pairwise(wide))))
        self.maps = nn.Conv2d(wide[0], targets * self.split**2, 1)
        self.register_buffer("grid", place_grid(side), persistent=False)

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return logits of what targets cover.

        Args:
            images: B x 3 x S x S, 0..255.
            targets: B x K int64, of each image.

        Returns:
            B x K x C x C, C = `cells` = S / 2.
        """
        shown = images.float().mul(1 / 127.5).sub(1)
        grid: torch.Tensor = self.grid  # type: ignore[assignment]
        shown = torch.cat([shown, grid.expand(len(shown), -1, -1, -1)], 1)
        seen = [functional.silu(self.stem(shown))]
        for block in self.down:
            seen.append(block(seen[-1]))
        hidden = self.deep(seen.pop())
        for block in self.up:
            hidden = functional.interpolate(hidden, scale_factor=2)
            hidden = block(torch.cat([hidden, seen.pop()], 1))
        maps = functional.pixel_shuffle(self.maps(hidden), self.split)
        chosen: torch.Tensor = maps[torch.arange(len(maps))[:, None], targets]
        return chosen


def outline_planes(logits: torch.Tensor) -> torch.Tensor:
    """Return what the rest of a network is shown of outlines.

    Beside each cell's share and its (bounded) logit: the largest share of its column and of its
    row, so that a box's sides, which the whole outline decides, can be seen from any place.

    Args:
        logits: B x C x C.

    Returns:
        B x `PLANES` x C x C, from 0 to 1 and the logit from -1 to 1.
    """
    shares = logits.sigmoid()
    columns = shares.amax(1, keepdim=True).expand_as(shares)
    rows = shares.amax(2, keepdim=True).expand_as(shares)
    return torch.stack([shares, (logits / 8).clamp(-1, 1), columns, rows], 1)
