"""Sampler-learner mismatch: how far two programs with the same weights disagree about tokens.

Three log-probabilities of a drawn token are told apart: by the *sampler* that drew it; by the
learner before the first gradient step of the iteration, *old*; and by the learner now. Between
sampler and old there are the same weights, so only rounding, kernels or a mistake: that ratio
weighs the token (`sampler_correction`) and is watched here. Between old and now there are gradient
steps: that ratio is clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.option_groups import ObjectiveSettings

FLOAT32_BOUND, HALF_BOUND = 1e-4, 0.1
"""Greatest mean difference of log-probabilities, nats, that is taken for rounding."""


def mismatch_sums(
    difference: torch.Tensor, correction: torch.Tensor, cap: float | None
) -> dict[str, torch.Tensor]:
    """Return what is logged of the mismatch, as sums over tokens and as maxima.

    Args:
        difference: (N,) old less sampler.
        correction: (N,) weights of `sampler_correction`.
        cap: Of the weights.
    """
    distance = difference.abs()
    capped = torch.zeros_like(correction) if cap is None else (correction >= cap).float()
    empty = not len(distance)
    return {
        "logp_difference": distance.sum(),
        "max_logp_difference": distance.new_zeros(()) if empty else distance.max(),
        "max_ratio_deviation": (
            distance.new_zeros(()) if empty else (difference.exp() - 1).abs().max()
        ),
        "importance": correction.sum(),
        "importance_capped": capped.sum(),
    }


def mismatch_bound(settings: ObjectiveSettings, dtypes: Iterable[torch.dtype]) -> float:
    """Return the greatest mean difference of log-probabilities that training goes on with.

    Args:
        settings: `max_logp_difference`; None chooses by type.
        dtypes: That sampler and learner compute in.
    """
    if settings.max_logp_difference is not None:
        return settings.max_logp_difference
    half = any(dtype in (torch.bfloat16, torch.float16) for dtype in dtypes)
    return HALF_BOUND if half else FLOAT32_BOUND


def require_agreement(sums: Mapping[str, float], bound: float, iteration: int) -> None:
    """Compare probabilities with those of the sampler, before anything was learned.

    Args:
        sums: Of the first gradient step of an iteration, see `mismatch_sums`, with `tokens`.
        bound: See `mismatch_bound`.
        iteration: Its number.

    Raises:
        LogProbMismatch: They differ by more in the mean, or one is not finite.
    """
    mean = sums["logp_difference"] / max(1.0, sums["tokens"])
    if mean <= bound:  # False for a mean that is not a number
        return
    raise LogProbMismatch(
        f"before the first gradient step of iteration {iteration} the log-probability of a token "
        f"differs by {mean:.3g} in the mean and {sums['max_logp_difference']:.3g} at most between "
        f"sampler and learner (a mean of {bound:g} is allowed): weights, masks or positions are "
        "not the same. If rounding alone does that (a sampler in bfloat16, say), give a larger "
        "max_logp_difference"
    )
