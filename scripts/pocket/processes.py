"""Several processes that train together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from medseg_gym.backbones.allocator import keep_freed_memory
from scripts.pocket.config import PocketConfig
from scripts.pocket.loop import Run


def run_process(
    rank: int,
    processes: int,
    config: PocketConfig,
    teaching: Path,
    out: Path,
    device: str,
    workers: int,
    port: int,
    report: Callable[[dict[str, Any]], None] | None,
) -> None:
    """One of `processes` training processes; they average their gradients."""
    keep_freed_memory()
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    if processes > 1:
        backend = "gloo" if device == "cpu" else "nccl"
        device = f"cuda:{rank}" if device == "cuda" else device
        where = f"tcp://127.0.0.1:{port}"
        dist.init_process_group(backend, init_method=where, rank=rank, world_size=processes)
    run = Run(config, teaching, out, rank, processes, device, workers)
    for numbers in run.train():
        if report is not None:
            report(numbers)
    if processes > 1:
        dist.barrier()  # the last validation is rank 0's alone
        dist.destroy_process_group()


def run_other_process(index: int, *arguments: Any) -> None:
    """Process `index` + 1 with the other arguments of `run_process`, as torch's spawn starts it."""
    run_process(index + 1, *arguments)
