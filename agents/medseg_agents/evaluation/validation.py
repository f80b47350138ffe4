"""Validation of a network during training: the first cases of the "val" split, each once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_agents.arrays.config import ArraySettings
from medseg_agents.arrays.networks import PromptNetwork
from medseg_agents.policies.network import NetworkPolicy
from medseg_gym.envs.contact_sheet import contact_sheet
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.episodes import EpisodeSummary, mean_summary
from medseg_gym.policy import Policy, make_envs, play_cases

DRAWN = 6
"""Validation episodes on a contact sheet."""


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


def play_validation(
    envs: CoreVectorEnv, policy: Policy, keys: Sequence[str], seed: int = 0, drawn: int = DRAWN
) -> tuple[list[EpisodeSummary], bytes]:
    """Play cases once each and draw the first of them.

    Args:
        envs: Made for the view of the policy.
        policy: Who plays.
        keys: Of the cases, always the same in a run, so that its sheets can be compared.
        seed: Of the policy.
        drawn: Episodes on the sheet.

    Returns:
        Summaries, and a PNG of the first `drawn` episodes with their masks (empty for none).
    """
    summaries: list[EpisodeSummary] = []
    episodes: list[tuple[str, Any]] = []
    for batch in play_cases(envs, policy, keys, seed):
        summaries += [played.summary for played in batch]
        episodes += [("", one.episode) for one in batch[: drawn - len(episodes)]]
    if not episodes:
        return summaries, b""
    with tempfile.TemporaryDirectory() as folder:
        return summaries, contact_sheet(episodes, Path(folder) / "sheet.png").read_bytes()


class Validator:
    """Plays validation cases with a network's likeliest actions.

    Args:
        config: Of the run.
        view: See `ArraySettings.view`.
    """

    def __init__(self, config: ArraySettings, view: dict[str, Any]) -> None:
        self.envs = make_envs(
            min(config.num_envs, config.eval_cases),
            cases=config.cases,
            split="val",
            **config.env_options(),
            **view,
        )
        self.keys = list(self.envs.source.keys[: config.eval_cases])

    def __call__(self, network: PromptNetwork) -> tuple[dict[str, float], bytes]:
        """Play the cases; returns `validation_metrics`, and a contact sheet of the first."""
        training = network.training
        policy = NetworkPolicy(network, "validation")
        summaries, sheet = play_validation(self.envs, policy, self.keys)
        network.train(training)
        return validation_metrics(summaries), sheet

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()
