"""The clipped objective over tokens, and the weights of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def token_weights(
    lengths: Sequence[int], loss_type: str, max_tokens: int, all_tokens: float | None = None
) -> np.ndarray:
    """Return the weight of one token of each episode; the loss is the weighted sum over tokens.

    Args:
        lengths: Completion tokens of each of the E episodes of a gradient step.
        loss_type: "grpo": the mean over an episode's tokens, then over episodes (Shao et al. 2024,
            eq. 3). "dapo": the mean over all tokens (Yu et al. 2025, section 3.3). "dr_grpo": the
            sum over an episode's tokens by `max_tokens`, then the mean over episodes (Liu et al.
            2025).
        max_tokens: Completion tokens that an episode could have.
        all_tokens: "dapo": mean tokens of a learner where several learners share a gradient step;
            None is the sum of `lengths`.

    Returns:
        (E,) float32.
    """
    sizes = np.maximum(np.asarray(lengths, float), 1)
    weights: np.ndarray
    if loss_type == "grpo":
        weights = 1 / sizes / len(sizes)
    elif loss_type == "dapo":
        weights = np.full(len(sizes), 1 / (all_tokens or sizes.sum()))
    else:
        weights = np.full(len(sizes), 1 / max_tokens / len(sizes))
    return weights.astype(np.float32)


def clipped_objective(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    epsilon: float,
    epsilon_high: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute PPO's clipped surrogate (Schulman et al. 2017, eq. 7) with DAPO's two bounds, a loss.

    Args:
        log_probs: (N,) of the tokens now.
        old_log_probs: (N,) when they were drawn.
        advantages: (N,).
        weights: (N,) see `token_weights`.
        epsilon: Lower bound of the ratio is 1 less this.
        epsilon_high: Upper bound is 1 plus this.

    Returns:
        The loss, (), and sums over tokens for the log: `clipped` tokens, of them those at the lower
        and at the upper bound, `clipped_low` and `clipped_high`; `approx_kl` from the sampler (k3);
        and the greatest distance of a ratio from 1, `max_ratio_deviation`.
    """
    change = log_probs - old_log_probs
    ratio = change.exp()
    bounded = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    gain = torch.minimum(ratio * advantages, bounded * advantages)
    with torch.no_grad():
        clipped = ratio * advantages > bounded * advantages
        deviation = (ratio - 1).abs().max() if len(ratio) else ratio.new_zeros(())
        sums = {
            "clipped": clipped.float().sum(),
            "clipped_low": (clipped & (advantages < 0)).float().sum(),
            "clipped_high": (clipped & (advantages > 0)).float().sum(),
            "approx_kl": k3(-change).sum(),
            "max_ratio_deviation": deviation,
        }
    return -(gain * weights).sum(), sums


def k3(change: torch.Tensor) -> torch.Tensor:
    """Estimate KL(p || q) from draws of p, Schulman's third estimator (2020).

    Args:
        change: (N,) log q - log p of each draw.

    Returns:
        (N,), none negative.
    """
    return change.exp() - change - 1
