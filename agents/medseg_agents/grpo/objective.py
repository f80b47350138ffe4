"""The clipped objective over tokens, and how tokens are weighed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def token_weights(
    lengths: Sequence[int], kind: str, most: int, all_tokens: float | None = None
) -> np.ndarray:
    """Weight of one token of each episode; the loss is the weighted sum over tokens.

    Args:
        lengths: Tokens said in each episode of a gradient step.
        kind: "grpo": the mean over an episode's tokens, then over episodes. "dapo": the mean over
            all tokens. "dr_grpo": the sum over an episode's tokens by `most`, then the mean over
            episodes. See `ChatSettings.loss`.
        most: Tokens that an episode could have.
        all_tokens: "dapo": mean tokens of a learner where several learners share a gradient step;
            None is the sum of `lengths`.

    Returns:
        (E,) float32.
    """
    sizes = np.maximum(np.asarray(lengths, float), 1)
    if kind == "grpo":
        weights = 1 / sizes / len(sizes)
    elif kind == "dapo":
        weights = np.full(len(sizes), 1 / (all_tokens or sizes.sum()))
    else:
        weights = np.full(len(sizes), 1 / most / len(sizes))
    return weights.astype(np.float32)


def clipped_objective(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7) with two bounds (DAPO), as a loss.

    Args:
        log_probs: (N,) of the tokens now.
        old_log_probs: (N,) when they were drawn.
        advantages: (N,).
        weights: (N,) see `token_weights`.
        clip_low: Lower bound is 1 less this.
        clip_high: Upper bound is 1 plus this.

    Returns:
        The loss, and sums over tokens for the log: `clipped` tokens, `kl` from the sampler (k3) and
        the greatest distance of a ratio from 1, `ratio_off`.
    """
    change = log_probs - old_log_probs
    ratio = change.exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    with torch.no_grad():
        lost = (ratio * advantages > bounded * advantages).float()
        figures: dict[str, Any] = {
            "clipped": lost.sum(),
            "kl": k3(-change).sum(),
            "ratio_off": (ratio - 1).abs().max() if len(ratio) else ratio.new_zeros(()),
        }
    return -(gain * weights).sum(), figures


def k3(change: torch.Tensor) -> torch.Tensor:
    """Schulman's third estimator of KL(p || q) from draws of p: `change` is log q - log p."""
    return change.exp() - change - 1
