"""Two layers of a convolutional network in one pass over memory, where torch has that on the CPU.

oneDNN can add, or apply a GELU, while it writes a product. torch offers that to its compiler only,
as operators without a promise: where they are missing or do something else, two ordinary operators
do the same. In training, on a GPU and under autocast it is always those.
"""

from __future__ import annotations

import platform
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def pointwise(conv: nn.Conv2d) -> torch.Tensor:
    """Weights of a 1 x 1 convolution as a matrix, out x in."""
    return conv.weight.flatten(1)


def bias_of(layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    """Biases of a layer that has them."""
    assert layer.bias is not None
    return layer.bias


def conv_gelu(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """`F.gelu(conv(x))`.

    Args:
        conv: Padded with zeros.
        x: B x C x h x w.
    """
    if not _usable(x, conv.weight):
        return F.gelu(conv(x))
    return _conv_gelu(x, conv)


def conv_add_(conv: nn.Conv2d, x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Return `to + conv(x)`.

    Args:
        conv: Padded with zeros.
        x: B x in x h x w.
        to: B x out x h x w. In inference it may become the result itself.
    """
    if not _usable(x, conv.weight):
        made: torch.Tensor = to + conv(x)
        return made
    return _conv_add_(x, conv, to)


def linear_add_(conv: nn.Conv2d, x: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Return `to` and what a 1 x 1 convolution makes of `x`, added.

    Args:
        conv: Of kernel size 1.
        x: B x h x w x in, contiguous.
        to: B x h x w x out, contiguous. In inference it may become the result itself.
    """
    if not _usable(x, conv.weight):
        return to + F.linear(x, pointwise(conv), conv.bias)
    return _conv_add_(x.permute(0, 3, 1, 2), conv, to.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _usable(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        torch.is_inference_mode_enabled()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and has_fused(x.dtype)
    )


def _conv_gelu(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    operator: Any = torch.ops.mkldnn._convolution_pointwise
    made: torch.Tensor = operator(
        *(x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups),
        *("gelu", [], "none"),
    )
    return made


def _conv_add_(x: torch.Tensor, conv: nn.Conv2d, to: torch.Tensor) -> torch.Tensor:
    operator: Any = torch.ops.mkldnn._convolution_pointwise_
    made: torch.Tensor = operator.binary(
        *(to, x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups),
        *("add", 1.0, None, [], None),
    )
    return made


def multiplies_bfloat16() -> bool:
    """Return whether this CPU has products of bfloat16; without, they are slower than float32's."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public ones
    if any(getattr(torch.cpu, name, lambda: False)() for name in names):
        return True
    return platform.machine().lower() in ("arm64", "aarch64")


@cache
def has_fused(dtype: torch.dtype) -> bool:
    """Try the fused operators once: whether they are there and do what the ordinary ones do."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        conv, flat = nn.Conv2d(16, 16, 3, padding=1).to(dtype), nn.Conv2d(16, 16, 1).to(dtype)
        x = torch.randn(2, 8, 8, 16, generator=generator).to(dtype)
        planes = x.permute(0, 3, 1, 2)
        try:
            pairs = (
                (_conv_gelu(planes, conv), F.gelu(conv(planes))),
                (_conv_add_(planes, conv, planes.clone()), planes + conv(planes)),
                (_conv_add_(planes, flat, planes.clone()), planes + flat(planes)),
            )
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        close = 1e-5 if dtype == torch.float32 else 5e-2
        return all(bool((one - other).abs().max() <= close) for one, other in pairs)
