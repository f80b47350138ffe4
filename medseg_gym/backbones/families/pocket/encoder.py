"""The image encoder of `pocket`: convolutions, a feature pyramid, and skips for sharp borders.

A plain ViT is too slow on a CPU, and an 8-pixel grid alone is too coarse for borders, so features
at strides 4 and 2 go past the transformer straight to the end of the mask decoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from medseg_gym.backbones.batching.fused import conv_add_, conv_gelu

SIDE = 256  # input, pixels
GRID = 32  # embedding, cells
DIM = 96  # embedding, channels
FINE = (32, 16)  # channels at strides 4 and 2
GROUPS, DIRECTION = 4, 12  # groups of channels whose directions are compared, and channels of one
WIDTHS, DEPTHS = (24, 40, 96, 144, 192), (1, 2, 3, 2)  # channels and blocks at strides 2 to 32
PIXEL_MEAN, PIXEL_STD = 0.0, 128.0  # so that padding, which is 0, is black


def whole_norm(channels: int) -> nn.GroupNorm:
    """Over the whole image: keeps contrast within it, does not hear its batch mates."""
    return nn.GroupNorm(1, channels)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = whole_norm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x h x w to the same; in inference it may be in the same memory."""
        return conv_add_(self.second, conv_gelu(self.first, self.norm(x)), x)


def _down(before: int, after: int) -> nn.Module:
    return nn.Conv2d(before, after, 3, stride=2, padding=1)


class PocketEncoder(nn.Module):
    """B x 3 x 256 x 256 to an embedding, directions to compare, and two skips.

    Returns:
        B x DIM x 32 x 32, B x GROUPS·DIRECTION x 32 x 32 (each group of unit length),
        B x FINE[0] x 64 x 64, B x 4·FINE[1] x 64 x 64.
    """

    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_down(3, WIDTHS[0]), whole_norm(WIDTHS[0]), nn.GELU())
        stages = []
        for before, after, depth in zip(WIDTHS[:-1], WIDTHS[1:], DEPTHS, strict=True):
            blocks = [Residual(after) for _ in range(depth)]
            stages.append(nn.Sequential(_down(before, after), *blocks))
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList([nn.Conv2d(width, DIM, 1) for width in WIDTHS[2:]])
        self.smooth = nn.Sequential(Residual(DIM), whole_norm(DIM), nn.Conv2d(DIM, DIM, 1))
        self.compare = nn.Conv2d(DIM, GROUPS * DIRECTION, 1)
        self.fine4 = nn.Conv2d(WIDTHS[1], FINE[0], 1)
        self.from_embedding = nn.Conv2d(DIM, FINE[0], 1)
        self.fine2 = nn.Conv2d(WIDTHS[0], 4 * FINE[1], 2, stride=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encode normalised pixels."""
        x = x.to(self.fine4.weight.dtype, memory_format=torch.channels_last)
        stem = self.stem(x)
        levels = []
        level = stem
        for stage in self.stages:
            level = stage(level)
            levels.append(level)
        top = self.laterals[-1](levels[-1])
        for lateral, level in zip(
            reversed(self.laterals[:-1]), reversed(levels[1:-1]), strict=True
        ):
            top = lateral(level) + F.interpolate(top, scale_factor=2.0, mode="bilinear")
        embedding = self.smooth(top)
        above = F.interpolate(self.from_embedding(embedding), scale_factor=2.0, mode="bilinear")
        directions = self.compare(embedding).unflatten(1, (GROUPS, -1))
        directions = F.normalize(directions, dim=2).flatten(1, 2)
        skips = self.fine4(levels[0]) + above, self.fine2(stem)
        # The decoder is faster on pixels than on planes, but for the directions.
        return (
            embedding.contiguous(memory_format=torch.channels_last),
            directions.contiguous(),
            *(skip.contiguous(memory_format=torch.channels_last) for skip in skips),
        )
