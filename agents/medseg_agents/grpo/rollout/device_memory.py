"""Peak memory of a GPU in the metrics of whoever uses it."""

from __future__ import annotations

from typing import Any

import torch


def log_peak_memory(metrics: Any, name: Any) -> None:
    """Log the peak of this process's GPU memory since the last call, GiB; nothing on a CPU.

    What counts is what tensors occupied (`torch.cuda.max_memory_allocated`), not what the
    allocator held in reserve; of several processes the greatest is kept.

    Args:
        metrics: RLlib's `MetricsLogger`.
        name: Of the metric, or RLlib's tuple of names.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return
    device = torch.cuda.current_device()
    metrics.log_value(name, torch.cuda.max_memory_allocated(device) / 2**30, reduce="max")
    torch.cuda.reset_peak_memory_stats(device)
