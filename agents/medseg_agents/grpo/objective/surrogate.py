"""The clipped surrogates of PPO, GRPO, DAPO, GSPO and CISPO, and an estimator of divergence."""

from __future__ import annotations

import torch

from medseg_agents.grpo.option_groups import ObjectiveSettings


def policy_loss(
    settings: ObjectiveSettings,
    log_probs: torch.Tensor,
    ratio: torch.Tensor,
    advantages: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the surrogate of each token, a loss.

    PPO's clipped surrogate (Schulman et al. 2017, eq. 7) with DAPO's two bounds (Yu et al. 2025,
    section 3.1). With `delta`, a ratio counts up to it for negative advantages too: without that
    bound a token that became much likelier has a loss without limit (dual clip, Ye et al. 2020,
    eq. 5; two-sided clipping of INTELLECT-2, 2025). "cispo" keeps every token's gradient
    and bounds its weight instead: -min(ratio, epsilon_high) * advantage * log-probability, the
    weight without gradient (MiniMax 2025, eq. 4).

    Args:
        settings: `loss_type`, `epsilon`, `epsilon_high`, `delta`.
        log_probs: (N,) of the tokens now.
        ratio: (N,) importance ratio of each token, with gradients.
        advantages: (N,).

    Returns:
        (N,) loss of each token; and counts of tokens for the log: `clipped`, those that an
        advantage no longer moves, and of them those at the lower and at the upper bound,
        `clipped_low` and `clipped_high`. Under "cispo" all are tokens whose weight was bounded.
    """
    low, high, delta = settings.epsilon, settings.epsilon_high, settings.delta
    if settings.loss_type == "cispo":
        losses = -ratio.detach().clamp(max=high) * advantages * log_probs
        bounded = (ratio.detach() > high).float().sum()
        none = torch.zeros_like(bounded)
        return losses, {"clipped": bounded, "clipped_low": none, "clipped_high": bounded}
    counted = ratio if delta is None else ratio.clamp(max=delta)
    losses = -torch.minimum(counted * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    with torch.no_grad():
        at_low = (ratio < 1 - low) & (advantages < 0)
        at_high = (ratio > 1 + high) & (advantages > 0)
        clipped = at_low | at_high
        if delta is not None:
            clipped |= (ratio > delta) & (advantages < 0)
    sums = {"clipped": clipped, "clipped_low": at_low, "clipped_high": at_high}
    return losses, {name: value.float().sum() for name, value in sums.items()}


def k3(change: torch.Tensor) -> torch.Tensor:
    """Estimate KL(p || q) from draws of p, Schulman's third estimator (2020).

    Args:
        change: (N,) log q - log p of each draw.

    Returns:
        (N,), none negative.
    """
    return change.exp() - change - 1
