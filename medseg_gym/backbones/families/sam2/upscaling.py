"""The mask decoder's upscaling as matrix products over pixels, channels last.

sam2 enlarges the image embedding fourfold by two transposed convolutions of stride 2 and kernel 2.
Their blocks do not overlap, so each is one matrix product per pixel. Keeping a pixel's 4 and then
16 descendants beside each other, channels last, spares every transposition and lets one fused
layer norm do what sam2's `LayerNorm2d` does in nine passes over memory; only the finished mask,
one number per pixel, is put in image order. Equal to the stock modules up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F


def by_parent(features: torch.Tensor, doublings: int) -> torch.Tensor:
    """Group pixels under the pixel of the coarse grid that they descend from.

    Args:
        features: C x H x W.
        doublings: n; the coarse grid is H/2^n x W/2^n.

    Returns:
        (H/2^n · W/2^n) x 4^n x C, a copy in memory of its own.
    """
    channels, height, width = features.shape
    halves = (2,) * doublings
    split = features.reshape(
        channels, height >> doublings, *halves, width >> doublings, *halves
    )  # C, y, y', y'', x, x', x''
    rows, columns = range(1, doublings + 2), range(doublings + 2, 2 * doublings + 3)
    order = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
    grouped = split.permute(*order, 0).clone(memory_format=torch.contiguous_format)
    return grouped.view(-1, 4**doublings, channels)


def to_grid(values: torch.Tensor, size: Sequence[int], doublings: int) -> torch.Tensor:
    """Undo `by_parent` for B x (h·w·4^n): B x 2^n·h x 2^n·w, where `size` is the coarse (h, w)."""
    pairs = values.reshape(-1, *size, *(2,) * (2 * doublings))
    axes = range(1, pairs.ndim, 2)
    order = [0, *axes, *(axis + 1 for axis in axes)]
    height, width = (side << doublings for side in size)
    return pairs.permute(order).reshape(-1, height, width)


class Upscaling:
    """A mask decoder's `output_upscaling`, with the finer features where the model has them.

    Args:
        modules: Transposed convolution, norm, activation, transposed convolution, activation.
    """

    def __init__(self, modules: Any) -> None:
        first, self._norm, self._activation, second, self._last_activation = modules
        for convolution in (first, second):
            assert convolution.kernel_size == convolution.stride == (2, 2)
        self._products = [self._matrix(convolution) for convolution in (first, second)]

    @staticmethod
    def _matrix(convolution: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight, 4·C_out x C_in, and bias of the same convolution as a linear layer."""
        weight = convolution.weight.detach().permute(2, 3, 1, 0).flatten(0, 2).contiguous()
        return weight, convolution.bias.detach().repeat(4)

    def __call__(self, image: torch.Tensor, finer: Sequence[torch.Tensor]) -> torch.Tensor:
        """Upscale B x (h·w) x C.

        Args:
            image: Image tokens from the two-way transformer.
            finer: Nothing, or the features to add, grouped by parent: the finest,
                B x (h·w) x 16 x C/8, and the middle ones, B x (h·w) x 4 x C/4.

        Returns:
            B x (h·w·16) x C/8, pixels in the order of `by_parent`.
        """
        x = F.linear(image, *self._products[0]).unflatten(2, (4, -1))
        if finer:
            x += finer[1]
        norm = self._norm
        x = self._activation(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
        x = F.linear(x, *self._products[1]).unflatten(3, (4, -1)).flatten(2, 3)
        if finer:
            x += finer[0]
        out: torch.Tensor = self._last_activation(x).flatten(1, 2)
        return out
