"""The machine that a number was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe_machine(device: str = "cpu") -> str:
    """Describe it in one line: processor, cores, accelerator, Python and torch versions.

    Args:
        device: The torch device in use; a GPU is named.
    """
    parts = [_processor(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} torch threads"]
    if torch.device(device).type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return ", ".join(parts)


def describe_crew(machines: str, workers: int) -> str:
    """Add the number of workers to the machines that they played on."""
    return f"{machines}, {workers} worker{'' if workers == 1 else 's'}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
