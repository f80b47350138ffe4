"""The loss of outlines in which small targets count as much as large ones."""

from __future__ import annotations

import torch
from torch.nn import functional

_SMOOTH = 30.0  # cells that a target has in the loss beside its own, so that tiny ones are bounded


def cover_losses(logits: torch.Tensor, covers: torch.Tensor) -> torch.Tensor:
    """Cross-entropy divided by the target's size, plus soft Dice loss; one value per target.

    Args:
        logits: ... x G x G.
        covers: The same, share of each cell that the target covers, 0..1.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, covers, reduction="none")
    area, shares = covers.sum((-2, -1)), logits.sigmoid()
    overlap = (shares * covers).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (shares.sum((-2, -1)) + area + 1)
    return entropy.sum((-2, -1)) / (4 * area + _SMOOTH) + dice
