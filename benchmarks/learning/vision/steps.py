"""Optimiser steps with a falling rate, resumable, for what is trained outside the suite's runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from medseg_agents.arrays.optimisers import MuonWithAdamW, steady_then_falling
from torch import nn

from medseg_gym.backbones.checkpoints import read_torch_file
from medseg_gym.storage.atomic_write import atomic_path
from medseg_gym.storage.line_files import append_rows

LAST = "last.pt"  # the checkpoint of a run
_SAVE_EVERY, _LOG_EVERY = 200, 50


def train_steps(
    trained: nn.Module,
    out: Path,
    steps: int,
    warmup: int,
    falling: float,
    learn: Callable[[int], tuple[torch.Tensor, Mapping[str, float]]],
    watch: Callable[[], Mapping[str, float]] = dict,
) -> None:
    """Train, or go on; `progress.jsonl` and the checkpoint `last.pt` are in the folder.

    Args:
        trained: In training mode.
        out: Folder of the run; made if it is not there.
        steps: In all.
        warmup: Steps in which the rate rises.
        falling: Share of the steps at the end in which it falls.
        learn: Called with the number of a step, gives the loss and what is logged of it.
        watch: Called with every checkpoint, gives what is logged beside.
    """
    out.mkdir(parents=True, exist_ok=True)
    optimiser = MuonWithAdamW(trained)
    peaks = [group["lr"] for group in optimiser.param_groups]
    step, last = 0, out / LAST
    if last.exists():
        state = read_torch_file(last)
        trained.load_state_dict(state["weights"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    logged: list[Mapping[str, float]] = []
    while step < steps:
        rate = steady_then_falling(step, steps, warmup, falling)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        loss, said_of_it = learn(step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        logged.append(said_of_it)
        step += 1
        if step % _LOG_EVERY and step < steps:
            continue
        row = {"step": step, **{k: float(np.mean([one[k] for one in logged])) for k in logged[0]}}
        logged = []
        if step % _SAVE_EVERY == 0 or step == steps:
            row |= watch()
            kept = {"weights": trained.state_dict(), "optimiser": optimiser.state_dict()}
            with atomic_path(last) as temporary:
                torch.save({**kept, "step": step}, temporary)
        append_rows(out / "progress.jsonl", [row])


def drawn_order(count: int, batch: int, step: int, seed: int) -> np.ndarray:
    """Return which of `count` a step learns from, (batch,) int; each once a pass."""
    passed, place = divmod(step, count // batch)
    order = np.random.default_rng([seed, passed]).permutation(count)
    return order[place * batch :][:batch]
