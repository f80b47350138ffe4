"""Importance ratios of tokens, turns and rows, and the correction for another sampler."""

from __future__ import annotations

import torch


def segment_mean(values: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """Return for each token the mean over its segment, with gradients.

    Args:
        values: (N,).
        segments: (N,) int64, number of each token's segment.

    Returns:
        (N,).
    """
    sums = _segment_sum(values, segments)
    counts = _segment_sum(torch.ones_like(values), segments)
    return (sums / counts.clamp(min=1))[segments]


def sampler_correction(
    difference: torch.Tensor, cap: float | None, segments: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the weights of truncated importance sampling, min(learner / sampler, cap).

    Tokens were drawn by the sampler, whose kernels and rounding may not be the learner's; weighing
    them by the ratio of probabilities corrects for that, and the cap bounds the variance (Ionides
    2008; Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training";
    TRL's "token_truncate" and "sequence_truncate").

    Args:
        difference: (N,) log-probability by the learner, before this iteration's first gradient
            step, less that by the sampler.
        cap: Greatest weight; None is no bound.
        segments: (N,) int64, numbers of sequences, whose tokens then all have the weight of the
            product of ratios over the sequence; None weighs each token by itself.

    Returns:
        (N,) without gradients.
    """
    difference = difference.detach()
    if segments is not None:
        difference = _segment_sum(difference, segments)[segments]
    weights = difference.exp()
    return weights if cap is None else weights.clamp(max=cap)


def _segment_sum(values: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    count = int(segments.max()) + 1 if len(segments) else 0
    return values.new_zeros(count).index_add(0, segments, values)
