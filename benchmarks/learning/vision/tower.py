"""Train the vision tower of a tiny model to say which cells a target covers.

A box in digits says little about an image: four numbers, wrong ones all equally wrong. Where a
target is and is not says it for every cell, so that a tower that knows nothing learns to see in a
fraction of the images. What it has learned is read off every image token by one linear map per
target, which training throws away; the language model then has to learn what boxes are called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from medseg_agents.arrays.localizer.loss import cover_losses
from torch import nn

from benchmarks.learning.vision.scenes import Scenes
from medseg_gym.annotators.box import box_agreement, tight_box
from medseg_gym.backbones.checkpoints import read_torch_file
from medseg_gym.storage.atomic_write import atomic_folder, atomic_path
from medseg_gym.storage.line_files import append_rows

SUBCELLS = 4  # along each side of what an image token shows
_BATCH, _WARMUP, _DECAY = 16, 100, 0.4
_SAVE_EVERY, _LOG_EVERY = 200, 50


class Seeing(nn.Module):
    """A vision tower, and a linear map per target from an image token to the cells it shows.

    Args:
        tower: Of Qwen3-VL.
        processor: Its image processor.
        targets: How many there are.
    """

    def __init__(self, tower: Any, processor: Any, targets: int) -> None:
        super().__init__()
        self.tower, self.processor = tower, processor
        width = tower.config.out_hidden_size
        self.maps = nn.Parameter(0.02 * torch.randn(targets, SUBCELLS**2, width))
        self.level = nn.Parameter(torch.full((targets,), -3.0))

    def forward(self, images: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
        """Return logits of what every target covers.

        Args:
            images: B x S x S x 3 uint8.
            targets: B x K int64.

        Returns:
            B x K x G x G.
        """
        made = self.processor(images=list(images), return_tensors="pt")
        tokens = self.tower(made["pixel_values"], grid_thw=made["image_grid_thw"]).pooler_output
        count, asked = targets.shape
        side = round((len(tokens) / count) ** 0.5)
        tokens = tokens.reshape(count, side, side, -1)
        logits = torch.einsum("bijh,bksh->bkijs", tokens, self.maps[targets])
        logits = logits + self.level[targets][..., None, None, None]
        logits = logits.unflatten(-1, (SUBCELLS, SUBCELLS)).permute(0, 1, 2, 4, 3, 5)
        placed: torch.Tensor = logits.reshape(count, asked, side * SUBCELLS, side * SUBCELLS)
        return placed


def train_tower(
    start: Path, out: Path, scenes: Scenes, held_out: Scenes, targets: int, steps: int, seed: int
) -> Path:
    """Train, or go on; `progress.jsonl` and the checkpoint are beside the model.

    Args:
        start: Folder of the model that knows nothing.
        out: Folder of the run.
        scenes: Trained on, each met several times and turned.
        held_out: Watched.
        targets: How many there are.
        steps: Of the optimiser, 16 images each.
        seed: Of order and turns.

    Returns:
        Folder of the model with the trained tower.
    """
    from medseg_agents.arrays.optimisers import MuonWithAdamW
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    done = out / "model"
    if done.is_dir():
        return done
    out.mkdir(parents=True, exist_ok=True)
    model = Qwen3VLForConditionalGeneration.from_pretrained(start)
    processor = AutoProcessor.from_pretrained(start)
    torch.manual_seed(seed)
    seeing = Seeing(model.model.visual, processor.image_processor, targets).train()
    optimiser = MuonWithAdamW(seeing)
    peaks = [group["lr"] for group in optimiser.param_groups]
    step, last = 0, out / "last.pt"
    if last.exists():
        state = read_torch_file(last)
        seeing.load_state_dict(state["seeing"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
    losses: list[float] = []
    while step < steps:
        rate = min(1.0, (step + 1) / _WARMUP, max((steps - step) / (_DECAY * steps), 0.01))
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * rate
        chosen, turns = _draw(len(scenes.images), step, seed)
        images, covers = scenes.batch(chosen, turns)
        loss = cover_losses(seeing(images, torch.from_numpy(scenes.targets[chosen])), covers).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(seeing.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        step += 1
        if step % _LOG_EVERY == 0 or step == steps:
            row = {"step": step, "loss": float(np.mean(losses))}
            losses = []
            if step % _SAVE_EVERY == 0 or step == steps:
                row |= watch(seeing, held_out)
                state = {"seeing": seeing.state_dict(), "optimiser": optimiser.state_dict()}
                with atomic_path(last) as temporary:
                    torch.save({**state, "step": step}, temporary)
            append_rows(out / "progress.jsonl", [row])
    with atomic_folder(done) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return done


def _draw(count: int, step: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of a step, and by how many quarters they are turned; every image once a pass."""
    per_pass = count // _BATCH
    passed, place = divmod(step, per_pass)
    order = np.random.default_rng([seed, passed]).permutation(count)
    turns = np.random.default_rng([seed, passed, place]).integers(0, 4, _BATCH)
    return order[place * _BATCH :][:_BATCH], turns


@torch.no_grad()
def watch(seeing: Seeing, scenes: Scenes) -> dict[str, float]:
    """Loss on held-out images, and the IoU of boxes round what the tower sees with the true ones.

    A target that is absent counts 1 where nothing is seen, else 0.
    """
    seeing.eval()
    losses, ious = [], []
    for first in range(0, len(scenes.images), _BATCH):
        chosen = np.arange(first, min(first + _BATCH, len(scenes.images)))
        images, covers = scenes.batch(chosen, np.zeros(len(chosen), int))
        logits = seeing(images, torch.from_numpy(scenes.targets[chosen]))
        losses.append(cover_losses(logits, covers).mean().item())
        for image, seen in zip(chosen, (logits > 0).numpy(), strict=True):
            pairs = zip(map(tight_box, seen), scenes.boxes(int(image)), strict=True)
            ious += [box_agreement(*pair) for pair in pairs]
    seeing.train()
    return {"held_out/loss": float(np.mean(losses)), "held_out/box_iou": float(np.mean(ious))}
