"""Validation of a network during training: the first cases of the "val" split, each once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg_agents.arrays.config import PPOSettings
from medseg_agents.arrays.networks import PromptNetwork
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.policies.network import NetworkPolicy
from medseg_gym.episodes import EpisodeSummary, mean_summary
from medseg_gym.policy import make_envs


def validation_metrics(summaries: Sequence[EpisodeSummary]) -> dict[str, float]:
    """Average validation cases, by "val/NAME".

    Args:
        summaries: At least one.

    Returns:
        `val/return` (mean of `EpisodeSummary.episode_return`) and, under the names of
        `mean_summary`, `val/dice`, `val/first_dice`, `val/turns`, `val/valid_rate` and
        `val/stopped`.
    """
    means = mean_summary(summaries)
    names = ("dice", "first_dice", "turns", "valid_rate", "stopped")
    return {
        "val/return": means["episode_return"],
        **{f"val/{name}": means[name] for name in names},
    }


class Validator:
    """Plays validation cases with a network's likeliest actions.

    Args:
        config: Of the run.
        view: See `PPOSettings.view`.
    """

    def __init__(self, config: PPOSettings, view: dict[str, Any]) -> None:
        self.envs = make_envs(
            min(config.num_envs, config.eval_cases),
            cases=config.cases,
            split="val",
            **config.env_options(),
            **view,
        )
        self.keys = list(self.envs.source.keys[: config.eval_cases])

    def __call__(self, network: PromptNetwork) -> dict[str, float]:
        """Play the cases; see `validation_metrics`."""
        training = network.training
        records = evaluate(self.envs, NetworkPolicy(network, "validation"), self.keys)
        network.train(training)
        return validation_metrics([record.summary for record in records])

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
