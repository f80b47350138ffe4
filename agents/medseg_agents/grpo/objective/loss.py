"""The whole loss of a micro-batch: policy, entropy, divergence from the reference, values."""

from __future__ import annotations

from typing import Any

import torch

from medseg_agents.grpo.objective.importance import sampler_correction, segment_mean
from medseg_agents.grpo.objective.mismatch import mismatch_sums
from medseg_agents.grpo.objective.surrogate import k3, policy_loss
from medseg_agents.grpo.option_groups import ObjectiveSettings


def chat_loss(
    settings: ObjectiveSettings, batch: dict[str, Any], out: dict[str, Any], turns: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the clipped objective, and what the settings add to it.

    Args:
        settings: Of the objective.
        batch: Over the N completion tokens `advantages`, `weights` (see `token_weights`),
            `sampler_log_probs`, `row_index` and `turn_index` (numbers of their row and turn);
            `old_log_probs`, unless no gradient step was taken since the tokens were drawn: then
            those of now are the old ones. (Without `tis_cap` those of the sampler always are.) Over
            the M turns `value_targets`. `value_only`: whether the value head alone learns.
        out: Of the module: `log_probs`, `entropy` (N,); `reference_log_probs` (N,) and `values`
            (M,) where there are such.
        turns: Turns of the whole gradient step, see `StepTotals`.

    Returns:
        The loss, (); and sums over tokens and turns for the log, those named "max_..." maxima.
    """
    log_probs, weights = out["log_probs"], batch["weights"]
    if settings.loss_type == "bnpo":
        weights = weights / max(1, len(log_probs))
    sampler = batch["sampler_log_probs"]
    old = batch.get("old_log_probs")
    old = log_probs.detach() if old is None else old
    corrects = settings.tis_cap is not None
    log_ratio = log_probs - (old if corrects else sampler)
    if settings.importance_sampling_level != "token":
        by_turn = settings.importance_sampling_level == "turn"
        log_ratio = segment_mean(log_ratio, batch["turn_index" if by_turn else "row_index"])
    ratio = log_ratio.exp()
    losses, sums = policy_loss(settings, log_probs, ratio, batch["advantages"])
    sequences = batch["row_index"] if settings.tis_level == "sequence" else None
    correction = sampler_correction(old - sampler, settings.tis_cap, sequences)
    if corrects:
        losses = losses * correction
    loss = (losses * weights).sum()
    with torch.no_grad():
        sums |= mismatch_sums(old - sampler, correction, settings.tis_cap)
        sums["approx_kl"] = k3(log_probs - sampler).sum()
        sums["tokens"] = torch.ones_like(log_probs).sum()
        sums["entropy"] = out["entropy"].sum()
    if settings.entropy:
        loss = loss - settings.entropy * (out["entropy"] * weights).sum()
    if "reference_log_probs" in out:
        kl = k3(out["reference_log_probs"] - log_probs)
        sums["kl"] = kl.detach().sum()
        if settings.use_bias_correction_kl:
            kl = kl * ratio
        loss = loss + settings.beta * (kl * weights).sum()
    if "values" in out:
        if batch["value_only"]:
            loss = loss * 0
        targets = batch["value_targets"]
        errors = (out["values"] - targets) ** 2
        loss = loss + settings.value_weight * errors.sum() / max(1.0, turns)
        sums["squared_error"] = errors.detach().sum()
        sums["turns"] = torch.ones_like(errors).sum()
        sums["targets"] = targets.sum()
        sums["targets_squared"] = (targets**2).sum()
    return loss, sums
