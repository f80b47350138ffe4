"""Train the vision tower of a tiny model to say where targets are.

A box in digits says little about an image: four numbers, wrong ones all equally wrong. Here a pass
of an image learns from all the targets that are known in it: which cells each covers, and its box
as a language model can read it, by attention to the image tokens and a linear map of what it found.
The readings are thrown away after training; the language model then has to learn what boxes are
called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from medseg_agents.arrays.localizer.loss import cover_losses
from medseg_agents.llm.tiny_model import place_waves
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from benchmarks.learning.vision.scenes import Batch, Scenes
from benchmarks.learning.vision.steps import drawn_order, train_steps
from medseg_gym.annotators.box import box_agreement
from medseg_gym.backbones.batching.fused import multiplies_bfloat16
from medseg_gym.backbones.checkpoints import read_torch_file
from medseg_gym.prompts import AddBox
from medseg_gym.storage.atomic_write import atomic_folder

SUBCELLS = 4  # along each side of what an image token shows
CODE = 32  # numbers that say one side of a box, as waves: a language model's words for numbers are
_BATCH, _WARMUP, _DECAY = 16, 100, 0.5
_REACH = 0.25  # of the image, what a side is away from where it was read, at 1
_DISTANCE, _OVERLAP, _CODES = 4.0, 0.5, 1.0  # weights of the losses of boxes
_GOOD_PART = 0.1  # of a token, from which a target may own it


class Seeing(nn.Module):
    """A vision tower, and linear readings of its image tokens for each target.

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
        self.queries = nn.Parameter(0.02 * torch.randn(targets, width))
        self.sides = nn.Parameter(0.02 * torch.randn(targets, 4, width))
        self.codes = nn.Linear(width, 4 * CODE)

    def forward(
        self, images: np.ndarray, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits of what every target covers, boxes, and codes of the tokens' own boxes.

        Args:
            images: B x S x S x 3 uint8.
            targets: B x K int64.

        Returns:
            B x K x G x G; B x K x 4 (left, top, right, bottom) in shares of the image, also of a
            target that is absent; and B x N x 4 x `CODE` for N image tokens.
        """
        made = self.processor(images=list(images), do_resize=False, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            tower = self.tower(made["pixel_values"], grid_thw=made["image_grid_thw"])
        tokens = tower.pooler_output.float()
        side = round((len(tokens) / len(images)) ** 0.5)
        tokens = tokens.reshape(len(images), side, side, -1)
        codes = self.codes(tokens.flatten(1, 2)).unflatten(-1, (4, CODE))
        return self._covers(tokens, targets), self._boxes(tokens, targets), codes

    def _covers(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = torch.einsum("bijh,bksh->bkijs", tokens, self.maps[targets])
        logits = logits + self.level[targets][..., None, None, None]
        logits = logits.unflatten(-1, (SUBCELLS, SUBCELLS)).permute(0, 1, 2, 4, 3, 5)
        placed: torch.Tensor = logits.flatten(4, 5).flatten(2, 3)
        return placed

    def _boxes(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        side = tokens.shape[1]
        line = (torch.arange(side) + 0.5) / side
        y, x = torch.meshgrid(line, line, indexing="ij")
        tokens, centres = tokens.flatten(1, 2), torch.stack([x, y, x, y], -1).flatten(0, 1)
        looks = torch.einsum("bnh,bkh->bkn", tokens, self.queries[targets]).softmax(-1)
        seen = centres + _REACH * torch.einsum("bnh,bkeh->bkne", tokens, self.sides[targets])
        boxes: torch.Tensor = torch.einsum("bkn,bkne->bke", looks, seen)
        return boxes


def seeing_loss(
    logits: torch.Tensor, boxes: torch.Tensor, codes: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """Loss of a batch: of covers over all known targets, of boxes and codes over those shown.

    Args:
        logits: B x K x G x G.
        boxes: B x K x 4.
        codes: B x N x 4 x `CODE`.
        batch: What is true.
    """
    loss = cover_losses(logits, batch.covers)[batch.known].mean()
    if batch.shown.any():
        read, true = boxes[batch.shown], batch.boxes[batch.shown]
        loss = loss + _DISTANCE * (read - true).abs().mean()
        low, high = read.split(2, -1)
        corners = torch.cat([torch.minimum(low, high), torch.maximum(low, high)], -1)
        loss = loss + _OVERLAP * generalized_box_iou_loss(corners, true, reduction="mean")
        row, target, token = owned_tokens(batch.covers, codes.shape[1]).nonzero(as_tuple=True)
        waves = place_waves(batch.boxes[row, target] * batch.places, batch.places, CODE)
        loss = loss + _CODES * (codes[row, token] - waves).square().mean()
    return loss


def owned_tokens(covers: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return which image tokens speak of which target.

    A token has one box to tell. It tells that of the smallest target that covers a good part of it,
    or whose best token it is; a target whose tokens all belong to others shares its best ones.

    Args:
        covers: B x K x G x G, share of each cell that a target covers.
        tokens: N, a square number.

    Returns:
        B x K x N bool.
    """
    side = round(tokens**0.5)
    shares = functional.adaptive_avg_pool2d(covers, side).flatten(2)
    best = shares.amax(2, keepdim=True)
    near = (shares > 0) & ((shares > _GOOD_PART) | (shares >= 0.5 * best))
    area = covers.sum((2, 3))[..., None]
    size = torch.where(near, area, torch.inf)
    own = near & (size == size.amin(1, keepdim=True))
    lost = ~own.any(2, keepdim=True) & (best > 0)
    return own | (lost & (shares == best))


class Before(NamedTuple):
    """Training of a tower that another goes on from.

    Attributes:
        checkpoint: File of its weights, readings included.
        steps: It has taken, whose order of images the other goes on with.
    """

    checkpoint: Path
    steps: int


def train_tower(
    start: Path,
    out: Path,
    scenes: Scenes,
    held_out: Scenes,
    targets: int,
    steps: int,
    seed: int,
    coarse: int = 0,
    before: Before | None = None,
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
        coarse: Side of the images until the rate falls, in pixels; 0 leaves them as they are. What
            is where is learned at little cost, and where exactly with all pixels.
        before: What it goes on from, if not from readings that know nothing.

    Returns:
        Folder of the model with the trained tower.
    """
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    done = out / "model"
    if done.is_dir():
        return done
    # Gradients of fused attention are slow in bfloat16 on a CPU: 41 ms a layer in all, eager 24;
    # in float32 it is the other way round, 58 and 79.
    attention = "eager" if multiplies_bfloat16() else "sdpa"
    model = Qwen3VLForConditionalGeneration.from_pretrained(start, attn_implementation=attention)
    processor = AutoProcessor.from_pretrained(start)
    torch.manual_seed(seed)
    seeing = Seeing(model.model.visual, processor.image_processor, targets).train()
    if before is not None:
        seeing.load_state_dict(read_torch_file(before.checkpoint)["weights"])
    met = 0 if before is None else before.steps

    def learn(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = drawn_order(len(scenes.images), _BATCH, met + step, seed)
        turns = np.random.default_rng([seed, met + step]).integers(0, 4, _BATCH)
        batch = scenes.batch(chosen, turns)
        if coarse and step < (1 - _DECAY) * steps:
            batch = batch.shrunk(coarse)
        logits, boxes, codes = seeing(batch.images, batch.targets)
        loss = seeing_loss(logits, boxes, codes, batch)
        return loss, {"loss": loss.item()}

    falling = _DECAY if before is None else 1.0
    train_steps(seeing, out, steps, _WARMUP, falling, learn, lambda: watch(seeing, held_out))
    with atomic_folder(done) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return done


@torch.no_grad()
def watch(seeing: Seeing, scenes: Scenes) -> dict[str, float]:
    """Loss on held-out images, and the IoU of boxes that are read off it with the true ones.

    A target counts as absent where no cell is seen covered. One that is absent counts 1 where it
    is not seen, else 0.
    """
    seeing.eval()
    losses: list[float] = []
    ious: list[float] = []
    for first in range(0, len(scenes.images), _BATCH):
        chosen = np.arange(first, min(first + _BATCH, len(scenes.images)))
        batch = scenes.batch(chosen, np.zeros(len(chosen), int))
        logits, boxes, codes = seeing(batch.images, batch.targets)
        losses.append(seeing_loss(logits, boxes, codes, batch).item())
        there = (logits > 0).any(-1).any(-1)
        for row, image in enumerate(chosen):
            for k, true in enumerate(scenes.boxes(int(image))):
                sides = boxes[row, k].clamp(0, 1).tolist()
                ious.append(box_agreement(AddBox(*sides) if there[row, k] else None, true))
    seeing.train()
    return {"held_out/loss": float(np.mean(losses)), "held_out/box_iou": float(np.mean(ious))}
