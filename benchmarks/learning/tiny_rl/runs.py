"""Methods of `benchmarks.learning.tiny_rl` and the folders of their runs."""

from __future__ import annotations

from pathlib import Path

TITLES = {"grpo": "GRPO", "ppo": "PPO over turns", "sft": "SFT continued"}
METHODS = tuple(TITLES)


def folder_of(out: Path, method: str, seed: int) -> Path:
    """Return the folder of one run below that of all runs."""
    return out / f"{method}-{seed}"
