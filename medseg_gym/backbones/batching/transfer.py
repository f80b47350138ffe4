"""From the host's memory to a device without waiting for it."""

from __future__ import annotations

from typing import Any

import torch


def to_device(
    values: Any, device: torch.device | str, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Copy values to a device; the host goes on at once.

    A GPU copies by itself only out of pinned memory: out of any other, and from a plain list, the
    host would wait until everything asked of the GPU before is done. torch keeps pinned memory
    until it has been read.

    Args:
        values: A tensor, an array that may be written, or a list of numbers.
        device: Where they go; on a CPU a tensor or an array keeps its memory.
        dtype: Of the result; None leaves it to torch.
    """
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
