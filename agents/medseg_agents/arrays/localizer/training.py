"""Train the localizer of a network, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.localizer.images import OutlinedImages, draw_images
from medseg_agents.arrays.localizer.loss import cover_losses
from medseg_agents.arrays.localizer.network import Localizer
from medseg_agents.arrays.optimisers import steady_then_falling
from medseg_agents.runs.log import RunLog
from medseg_gym.annotators.box import box_agreement, tight_box
from medseg_gym.backbones.checkpoints import read_torch_file
from medseg_gym.cases import load_cases
from medseg_gym.storage.atomic_write import atomic_path

FOLDER = "localizer"
_STATE = "last.pt"
_WARMUP, _FALLING = 50, 0.6
_LOG_EVERY, _SAVE_EVERY = 50, 200


def train_localizer(
    localizer: Localizer,
    config: DaggerConfig,
    view: Mapping[str, Any],
    out: Path,
    console: Console | None = None,
) -> None:
    """Train, or go on from what is in the folder; the localizer is changed in place.

    Images are drawn anew when training goes on: the same ones.

    Args:
        localizer: On the device that it trains on.
        config: Of the run.
        view: See `ArraySettings.view`.
        out: Folder of the run; what is written is in its folder "localizer".
        console: For the progress bar.

    Raises:
        MedSegError: The cases cannot be read, or what was kept is damaged.
        TrainingDiverged: The loss is not finite.
    """
    folder, steps = out / FOLDER, config.localizer_steps
    folder.mkdir(parents=True, exist_ok=True)
    shape = view["targets"], config.image_size, localizer.cells
    optimizer = torch.optim.AdamW(localizer.parameters(), lr=2e-3, betas=(0.9, 0.95))
    device = next(localizer.parameters()).device
    step = 0
    if (folder / _STATE).exists():
        state = read_torch_file(folder / _STATE)
        localizer.load_state_dict(state["localizer"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if step >= steps:
        return
    train = draw_images(
        load_cases(config.cases, "train"), config.localizer_images, *shape, config.seed
    )
    held_out = draw_images(load_cases(config.cases, "val"), config.eval_cases, *shape, config.seed)
    shown = ("train/localizer_loss", "val/localizer_iou")
    with RunLog(folder, steps, step, console, shown, log_to=()) as log:
        losses: list[float] = []
        while step < steps:
            rate = steady_then_falling(step, steps, _WARMUP, _FALLING)
            for group in optimizer.param_groups:
                group["lr"] = config.localizer_rate * rate
            draws = np.random.default_rng([config.seed, step])
            chosen = draws.integers(len(train), size=config.localizer_batch).tolist()
            turns = int(draws.integers(4)) if config.localizer_turns else 0
            images, targets, covers, real = (one.to(device) for one in train.batch(chosen, turns))
            with torch.autocast(device.type, torch.bfloat16, enabled=config.is_lower):
                logits = localizer(images, targets)
            loss = cover_losses(logits.float(), covers)[real].mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(localizer.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step % _LOG_EVERY and step < steps:
                continue
            row = {"train/localizer_loss": float(np.mean(losses))}
            losses = []
            if step % _SAVE_EVERY == 0 or step == steps:
                row |= watch(localizer, held_out)
                state = {"localizer": localizer.state_dict(), "optimizer": optimizer.state_dict()}
                with atomic_path(folder / _STATE) as temporary:
                    torch.save({**state, "step": step}, temporary)
            log.write(step, row)


@torch.no_grad()
def watch(localizer: Localizer, images: OutlinedImages, batch: int = 32) -> dict[str, float]:
    """Return loss on held-out images, and the IoU of boxes round its outlines with the true ones.

    A target that is absent counts 1 where the outline is empty, else 0.

    Args:
        localizer: Is left as it was.
        images: Held out.
        batch: Images of a pass.
    """
    device = next(localizer.parameters()).device
    losses: list[float] = []
    ious: list[float] = []
    for first in range(0, len(images), batch):
        chosen = list(range(first, min(first + batch, len(images))))
        shown, targets, covers, real = (one.to(device) for one in images.batch(chosen))
        logits = localizer(shown, targets)
        losses += cover_losses(logits, covers)[real].tolist()
        outlines = (logits > 0).cpu().numpy()
        for row, i in enumerate(chosen):
            for outline, box in zip(outlines[row], images.boxes[i], strict=False):
                ious.append(box_agreement(tight_box(outline), box))
    return {"val/localizer_loss": float(np.mean(losses)), "val/localizer_iou": float(np.mean(ious))}
