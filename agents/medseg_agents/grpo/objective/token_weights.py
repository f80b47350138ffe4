"""The weight of a completion token in a gradient step, by loss type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepTotals:
    """Sizes of a gradient step, as the mean over learners.

    Gradients are averaged over learners, so what is divided by a mean over learners is the mean
    over everything that all of them learn from.

    Args:
        tokens: Completion tokens that are learned from.
        episodes: Episodes.
        turns: Turns, each with a value where there is a value head.
    """

    tokens: float
    episodes: float
    turns: float


def token_weights(
    lengths: Sequence[int],
    loss_type: str,
    max_tokens: int,
    totals: StepTotals | None = None,
    micro_batches: int = 1,
) -> np.ndarray:
    """Return the weight of one token of each episode; the loss is the weighted sum over tokens.

    Args:
        lengths: Completion tokens of each of the E episodes that this learner has in the step.
        loss_type: "grpo": the mean over an episode's tokens, then over episodes (Shao et al. 2024,
            eq. 3). "dapo": the mean over all tokens (Yu et al. 2025, section 3.3), "cispo" likewise
            (MiniMax 2025, eq. 4). "dr_grpo": the sum over an episode's tokens by `max_tokens`, then
            the mean over episodes (Liu et al. 2025). "bnpo": the mean over the tokens of a
            micro-batch, then over micro-batches (as TRL has it); the weight here is that of the
            micro-batch, and `chat_loss` divides by its tokens.
        max_tokens: Completion tokens that an episode could have.
        totals: Of the step over all learners; None is this learner's own.
        micro_batches: Of this learner in the step, "bnpo" alone.

    Returns:
        (E,) float32.
    """
    sizes = np.maximum(np.asarray(lengths, float), 1)
    count = len(sizes)
    tokens, episodes = (
        (totals.tokens, totals.episodes) if totals else (float(np.sum(lengths)), float(count))
    )
    weights: np.ndarray
    if loss_type == "grpo":
        weights = 1 / sizes / episodes
    elif loss_type in ("dapo", "cispo"):
        weights = np.full(count, 1 / max(tokens, 1.0))
    elif loss_type == "dr_grpo":
        weights = np.full(count, 1 / max_tokens / episodes)
    elif loss_type == "bnpo":
        weights = np.full(count, 1 / micro_batches)
    else:
        raise ValueError(f"no loss type {loss_type!r}: grpo, dapo, dr_grpo, bnpo or cispo")
    return weights.astype(np.float32)
