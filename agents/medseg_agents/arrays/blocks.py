"""The convolutions that networks of the array view are made of."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions with a residual; the first is normalised, scaled and shifted.

    Args:
        inside: Channels that come in.
        outside: Channels that go out.
        condition_size: Length of the vector that decides scale and shift; None learns one scale and
            shift for all inputs.
        stride: Of the first convolution.
    """

    def __init__(
        self, inside: int, outside: int, condition_size: int | None = None, stride: int = 1
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(min(8, outside), outside, affine=condition_size is None)
        self.film = None if condition_size is None else nn.Linear(condition_size, 2 * outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1)
        self.stride = stride
        self.skip = (
            nn.Conv2d(inside, outside, 1) if inside != outside or stride > 1 else nn.Identity()
        )

    def forward(self, x: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the block's output.

        Args:
            x: B x `inside` x h x w.
            condition: B x `condition_size`, where there is one.

        Returns:
            B x `outside` x h' x w', h' and w' divided by the stride.
        """
        hidden = self.norm(self.first(x))
        if self.film is not None:
            assert condition is not None
            scale, shift = self.film(condition)[..., None, None].chunk(2, 1)
            hidden = hidden * (1 + scale) + shift
        # Not a convolution with a stride: with a kernel of 1 and 4 channels its backward pass
        # writes outside of its memory in torch 2.14 (channels last, CPU without AVX-512).
        kept = x[..., :: self.stride, :: self.stride]
        return functional.silu(self.second(functional.silu(hidden)) + self.skip(kept))


def level_widths(width: int, levels: int) -> list[int]:
    """Return channels by level: twice as many a level, up to four times.

    More would be weights, not sight.
    """
    return [width * 2 ** min(level, 2) for level in range(levels)]


def make_stem(planes: int, width: int, patch: int) -> nn.Conv2d:
    """Return the convolution that reads planes, one output place for `patch` x `patch` pixels."""
    if patch == 2:
        return nn.Conv2d(planes, width, 3, 2, 1)
    return nn.Conv2d(planes, width, patch, patch)


def place_grid(side: int) -> torch.Tensor:
    """Return 1 x 2 x S x S coordinates x and y of pixels, from -1 to 1."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]
