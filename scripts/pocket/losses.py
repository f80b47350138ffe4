"""Losses of the training of `pocket`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

NEIGHBOURS = ((0, 1), (1, 0), (0, 3), (3, 0), (2, 2), (2, -2), (6, 0), (0, 6))  # cells
IOU_WEIGHT, OTHERS_WEIGHT = 0.2, 0.05  # of predicted IoU, and of the two worse masks
SMOOTH = 1000.0  # pixels of a 128 x 128 mask, so that tiny targets do not drown the rest


def mask_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross entropy scaled by the target's size, and soft Dice.

    Args:
        logits: ... x h x w.
        truth: ... x h x w in 0..1, of that shape or broadcast to it.

    Returns:
        One value per mask.
    """
    truth = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum((-2, -1))
    area = truth.sum((-2, -1))
    shares = logits.sigmoid()
    overlap = (shares * truth).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (shares.sum((-2, -1)) + area + 1)
    return entropy / (4 * area + SMOOTH) + dice


def iou(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """IoU of the thresholded masks, one per mask."""
    mask = (logits > 0).float()
    both = (mask * truth).sum((-2, -1))
    return both / (mask.sum((-2, -1)) + truth.sum((-2, -1)) - both).clamp(min=1e-3)


def choose_and_judge(
    logits: torch.Tensor, scores: torch.Tensor, truth: torch.Tensor, single: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of one round, and the mask that goes into the next.

    Args:
        logits: N x 4 x h x w.
        scores: N x 4 predicted IoU.
        truth: N x h x w in 0..1.
        single: N bool, rows where SAM chooses among masks 1 to 3 as its decoder does in use.

    Returns:
        N losses with a gradient, and N x h x w logits without.
    """
    solid = (truth >= 0.5).float()
    losses = mask_loss(logits[:, :1], truth[:, None])
    errors = (scores[:, :1] - iou(logits[:, :1].detach(), solid[:, None])) ** 2
    loss = losses[:, 0] + IOU_WEIGHT * errors[:, 0]
    best = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    if single.any():
        some = torch.nonzero(single).flatten()
        three = logits[some, 1:]
        each = mask_loss(three, truth[some, None])
        off = (scores[some, 1:] - iou(three.detach(), solid[some, None])) ** 2
        combined = each.min(1).values + OTHERS_WEIGHT * each.mean(1) + IOU_WEIGHT * off.mean(1)
        loss = loss.index_add(0, some, combined)
        best[some] = scores[some, 1:].argmax(1) + 1
    return loss, logits.detach()[torch.arange(len(logits), device=logits.device), best]


class EmbeddingLoss(nn.Module):
    """Distance of the teacher's embedding from one read off the pupil's, cell by cell."""

    def __init__(self, channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(channels, teacher_channels, 1)

    def forward(self, embedding: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Squared error over the teacher's variance, and one minus the cosine."""
        predicted, wanted = self.read(embedding).float(), teacher.float()
        error = F.mse_loss(predicted, wanted) / wanted.var().clamp(min=1e-4)
        return error + (1 - F.cosine_similarity(predicted, wanted, dim=1).mean())


class AffinityLoss(nn.Module):
    """Return the cells that belong together, and the edges between regions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, 32, 1)
        self.edges = nn.Conv2d(channels, 16, 1)

    def forward(self, embedding: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
        """Compare with regions, B x S x S."""
        step = regions.shape[1] // embedding.shape[2]
        labels = regions[:, step // 2 :: step, step // 2 :: step]
        directions = F.normalize(self.project(embedding).float(), dim=1)
        total = embedding.new_zeros((), dtype=torch.float32)
        for offset in NEIGHBOURS:
            alike = 8 * (directions * directions.roll(offset, (2, 3))).sum(1) - 4
            same = (labels == labels.roll(offset, (1, 2))).float()
            share = same.mean().clamp(0.05, 0.95)
            weight = torch.where(same > 0, 0.5 / share, 0.5 / (1 - share))
            total = total + F.binary_cross_entropy_with_logits(alike, same, weight)
        half = regions[:, ::2, ::2]
        edge = torch.zeros(half.shape, device=half.device)
        edge[:, :-1] = (half[:, 1:] != half[:, :-1]).float()
        across = (half[:, :, 1:] != half[:, :, :-1]).float()
        edge[:, :, :-1] = torch.maximum(edge[:, :, :-1], across)
        edge_logits = F.pixel_shuffle(self.edges(embedding).float(), 4)[:, 0]
        weight = torch.as_tensor(4.0, device=edge_logits.device)
        return total / len(NEIGHBOURS) + F.binary_cross_entropy_with_logits(
            edge_logits, edge, pos_weight=weight
        )
