"""Validation of a network during training: the first cases of the "val" split, each once."""

from __future__ import annotations

from typing import Any

from medseg_agents.arrays.config import PPOSettings
from medseg_agents.arrays.networks import PromptNetwork
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.policies.network import NetworkPolicy
from medseg_gym.policy import make_envs


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
        """Mean Dice, Dice after the first step, return and actions, by "val/NAME"."""
        training = network.training
        records = evaluate(self.envs, NetworkPolicy(network, "validation"), self.keys)
        network.train(training)
        count = len(records)
        return {
            "val/dice": sum(r.dice[-1] for r in records) / count,
            "val/dice_first": sum(r.dice_after(1) for r in records) / count,
            "val/return": sum(r.episode_return for r in records) / count,
            "val/turns": sum(r.turns for r in records) / count,
        }

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
