"""Metrics of an iteration, under the names that `docs/reference/metrics.md` defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID

from medseg_gym.episodes import Episode, EpisodeSummary

REWARD = "reward/"
LENGTH = "completion_length/"
BRANCH = "branch/"
RATIO_DEVIATION = "sampling/max_ratio_deviation"
LOGP_DIFFERENCE = "sampling/sampling_logp_difference/"
IMPORTANCE = "sampling/importance_sampling_ratio/"

_OF_EPISODES = ("dice", "turns", "valid_rate", "stopped", "return_regret")
"""Fields of `EpisodeSummary` that are logged under their own names."""

_PLAYED = {
    "episode_return_mean": "return",
    **{name: name for name in _OF_EPISODES},
    **{name: name for name in ("tokens_per_second", "encodes")},
}
"""Name in the log by name among RLlib's `env_runners`."""

_LEARNED = (
    *("group_reward_std", "frac_reward_zero_std", "clip_ratio/low", "clip_ratio/high"),
    *("clip_ratio/region", "approx_kl", "kl", "entropy", RATIO_DEVIATION, "value_loss"),
    *("explained_variance", "learning_rate"),
    *(f"{LOGP_DIFFERENCE}mean", f"{LOGP_DIFFERENCE}max"),
    *(f"{IMPORTANCE}mean", f"{IMPORTANCE}capped"),
)
"""Names among RLlib's metrics of the learner, and in the log."""


def episode_metrics(episode: Episode, rewards: Sequence[float]) -> dict[str, float]:
    """Return the numbers of one episode that are averaged over episodes.

    Args:
        episode: It is over.
        rewards: One per turn.
    """
    summary = EpisodeSummary.of(episode, rewards=rewards)
    return {
        "episode_return_mean": summary.episode_return,  # RLlib's own name
        **{name: float(getattr(summary, name)) for name in _OF_EPISODES},
    }


def reward_metrics(terms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return mean and standard deviation over episodes of each term of the reward.

    Args:
        terms: Of each episode, every term summed over its turns.
    """
    metrics = {}
    for name in sorted({name for episode in terms for name in episode}):
        values = np.array([episode.get(name, 0.0) for episode in terms])
        metrics[f"{REWARD}{name}/mean"] = float(values.mean())
        metrics[f"{REWARD}{name}/std"] = float(values.std())
    return metrics


def length_metrics(lengths: Sequence[int], clipped: int) -> dict[str, float]:
    """Return statistics of completion lengths.

    Args:
        lengths: Tokens of each turn's completion, the one that ends it included.
        clipped: Completions that ran into the limit.
    """
    return {
        f"{LENGTH}mean": float(np.mean(lengths)),
        f"{LENGTH}min": float(np.min(lengths)),
        f"{LENGTH}max": float(np.max(lengths)),
        f"{LENGTH}clipped_ratio": clipped / len(lengths),
    }


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
        turns = sums["turns"]
        metrics["value_loss"] = sums["squared_error"] / turns
        variance = sums["targets_squared"] / turns - (sums["targets"] / turns) ** 2
        metrics["explained_variance"] = 1 - metrics["value_loss"] / max(variance, 1e-8)
    if first_step:
        metrics[RATIO_DEVIATION] = sums["max_ratio_deviation"]
        metrics[f"{LOGP_DIFFERENCE}mean"] = sums["logp_difference"] / tokens
        metrics[f"{LOGP_DIFFERENCE}max"] = sums["max_logp_difference"]
        metrics[f"{IMPORTANCE}mean"] = sums["importance"] / tokens
        metrics[f"{IMPORTANCE}capped"] = sums["importance_capped"] / tokens
    return metrics


def read_result(result: dict[str, Any]) -> dict[str, float]:
    """Return what the log keeps of an RLlib result, under the log's names."""
    played, learned = result["env_runners"], result["learners"].get(DEFAULT_MODULE_ID, {})
    update = result["update_seconds"]
    playing, segmenting = played["generation_seconds"], played["segmentation_seconds"]
    whole = max(1e-9, playing + segmenting + update)
    metrics = {
        **{name: played[key] for key, name in _PLAYED.items()},
        **{
            name: value
            for name, value in played.items()
            if name.startswith((REWARD, LENGTH, BRANCH))
        },
        "share/generation": playing / whole,
        "share/segmentation": segmenting / whole,
        "share/update": update / whole,
        "time/update": update,
        "time/weight_sync": played["weight_sync_seconds"],
        **{name: learned[name] for name in _LEARNED if name in learned},
    }
    norm = learned.get("gradients_default_optimizer_global_norm")
    if norm is not None:
        metrics["grad_norm"] = norm
    return {name: float(value) for name, value in metrics.items()}
