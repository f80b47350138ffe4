"""Metrics of an iteration, under the names that `docs/reference/metrics.md` defines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID

REWARD = "reward/"
LENGTH = "completion_length/"
BRANCH = "branch/"
RATIO_DEVIATION = "sampling/max_ratio_deviation"
LOGP_DIFFERENCE = "sampling/sampling_logp_difference/"
IMPORTANCE = "sampling/importance_sampling_ratio/"

SUMMARY = {
    "episode_return_mean": "episode_return",  # RLlib's own name
    **{name: name for name in ("dice", "turns", "valid_rate", "stopped", "return_regret")},
}
"""Field of `EpisodeSummary` by its name among RLlib's `env_runners`."""

_RENAMED = {
    "episode_return_mean": "return",
    "gradients_default_optimizer_global_norm": "grad_norm",
}
"""Name in the log by RLlib's name."""

_PLAYED = (*SUMMARY, "calls", "encodes")
"""Names of RLlib's `env_runners` that the log keeps, beside every name with a stroke in it."""

_RLLIB = re.compile(
    r"num_.*|module_train_batch_size_mean|default_optimizer_learning_rate|weights_seq_no"
    r"|diff_num_grad_updates.*|.*_throughput|total_loss|connector_pipeline_timer"
)
"""RLlib's own metrics of a learner, which the log leaves out."""


def branch_metrics(turns: Sequence[int], short: int) -> dict[str, float]:
    """Return where groups branched.

    Args:
        turns: Of each group, the first turn that is its episodes' own.
        short: Groups whose trunk ended before the turn that was drawn.
    """
    return {
        f"{BRANCH}turn": float(np.mean(turns)),
        f"{BRANCH}short_trunks": short / len(turns),
    }


def learner_metrics(sums: Mapping[str, float], first_step: bool) -> dict[str, float]:
    """Return the metrics of a gradient step.

    Args:
        sums: Over its tokens and turns, see `objective.chat_loss`.
        first_step: Nothing was learned from these episodes before.
    """
    tokens = max(1.0, sums["tokens"])
    metrics = {
        "clip_ratio/low": sums["clipped_low"] / tokens,
        "clip_ratio/high": sums["clipped_high"] / tokens,
        "clip_ratio/region": sums["clipped"] / tokens,
        "approx_kl": sums["approx_kl"] / tokens,
        "entropy": sums["entropy"] / tokens,
    }
    if "kl" in sums:
        metrics["kl"] = sums["kl"] / tokens
    if "squared_error" in sums:
        metrics["value_loss"] = sums["squared_error"] / sums["turns"]
    if first_step:
        metrics[RATIO_DEVIATION] = sums["max_ratio_deviation"]
        metrics[f"{LOGP_DIFFERENCE}mean"] = sums["logp_difference"] / tokens
        metrics[f"{LOGP_DIFFERENCE}max"] = sums["max_logp_difference"]
        metrics[f"{IMPORTANCE}mean"] = sums["importance"] / tokens
        metrics[f"{IMPORTANCE}capped"] = sums["importance_capped"] / tokens
    return metrics


def read_result(result: dict[str, Any]) -> dict[str, float]:
    """Return what the log keeps of an RLlib result, under the log's names.

    Whatever a runner logs under a name with a stroke in it, or a learner under any name that is
    not RLlib's own, is kept: a new metric needs no entry here.
    """
    played, learned = result["env_runners"], result["learners"].get(DEFAULT_MODULE_ID, {})
    update = result["update_seconds"]
    playing, segmenting = played["generation_seconds"], played["segmentation_seconds"]
    whole = max(1e-9, playing + segmenting + update)
    elapsed = result["playing_seconds"]
    kept = {
        **{name: value for name, value in played.items() if name in _PLAYED or "/" in name},
        **{name: value for name, value in learned.items() if not _RLLIB.fullmatch(name)},
    }
    metrics = {
        **{_RENAMED.get(name, name): value for name, value in kept.items()},
        "tokens_per_second": played["tokens"] / max(1e-9, elapsed),
        "episodes_per_second": played["episodes"] / max(1e-9, elapsed + update),
        "share/generation": playing / whole,
        "share/segmentation": segmenting / whole,
        "share/update": update / whole,
        "time/update": update,
        "time/weight_sync": played["weight_sync_seconds"],
    }
    return {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
