"""Behaviour cloning: start a network from what an expert did in stored trajectories.

A loop over minibatches of PyTorch is all it takes. The two libraries at hand do not serve: the
package `imitation` needs a gymnasium and an SB3 of years ago, and RLlib's BC reads RLlib's own
episode files through Ray Data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_agents.arrays.config import PPOSettings
from medseg_agents.arrays.networks import PromptNetwork
from medseg_agents.runs.log import RunLog
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.errors import PolicyError
from medseg_gym.trajectories import StoredCases, TrajectoryStore, rebuild_episode


@dataclass(frozen=True)
class Demonstrations:
    """Observations and actions of experts.

    Args:
        observations: Arrays of the view with a leading axis n.
        actions: (n, 5) int64.
        returns: What the episode still brought from there, undiscounted, (n,) float32.
        episodes: How many they come from.
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    returns: np.ndarray
    episodes: int


def read_demonstrations(path: str | Path, view: ArrayView, max_steps: int) -> Demonstrations:
    """Read the accepted episodes of a store as one view shows them.

    Args:
        path: Folder of the store.
        view: The tools of the expert must be among its own.
        max_steps: Of the environment; episodes with another limit teach another game.

    Raises:
        PolicyError: No episode, a tool that the view lacks, or another number of steps.
        TrajectoryError: What the store or the search for its cases says.
    """
    store, cases = TrajectoryStore(path), StoredCases()
    seen: list[dict[str, np.ndarray]] = []
    actions, returns, episodes = [], [], 0
    for trajectory in store:
        if trajectory.accepted is False or not trajectory.finished:
            continue
        if trajectory.facts.options.get("max_steps") != max_steps:
            raise PolicyError(
                f"{path}: recorded with max_steps {trajectory.facts.options.get('max_steps')}, "
                f"the environment has {max_steps}"
            )
        if trajectory.facts.split not in (None, "train"):
            raise PolicyError(
                f"{path}: {trajectory.key.case} is of the {trajectory.facts.split!r} split; only "
                "training cases may be learned from"
            )
        episode = rebuild_episode(trajectory, cases.find(trajectory))
        rewards = np.array(trajectory.rewards, np.float32)
        for number, step in enumerate(episode.steps):
            if step.prompt is None or not step.valid:
                continue
            before = copy.copy(episode)
            before.steps = episode.steps[:number]
            seen.append(view.observe([before]))
            actions.append(view.codec.encode(step.prompt))  # says which tool is not the view's
            returns.append(rewards[number:].sum())
        episodes += 1
    if not actions:
        raise PolicyError(f"{path}: no accepted episode to learn from")
    return Demonstrations(
        {key: np.concatenate([row[key] for row in seen]) for key in seen[0]},
        np.stack(actions),
        np.array(returns, np.float32),
        episodes,
    )


def clone(network: PromptNetwork, config: PPOSettings, view: dict[str, Any], log: RunLog) -> None:
    """Fit a network to demonstrations: actions by likelihood, values by squared error.

    Args:
        network: Trained in place.
        config: `clone`, `clone_epochs`, `clone_learning_rate`, `minibatch`, `seed`.
        view: See `PPOSettings.view`.
        log: Gets a row per epoch; the last tenth of the episodes is not trained on but watched.
    """
    assert config.clone is not None
    shown = ArrayView(**view)
    data = read_demonstrations(config.clone, shown, config.max_steps)
    rows = len(data.actions)
    held = np.arange(rows) >= rows - rows // 10
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=config.clone_learning_rate)
    per_epoch = -(-int((~held).sum()) // config.minibatch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, config.clone_epochs * per_epoch)
    )
    generator = np.random.default_rng([config.seed, 0xBC])
    for _ in range(config.clone_epochs):
        losses = []
        order = generator.permutation(np.flatnonzero(~held))
        for minibatch in _minibatches(order, config.minibatch):
            policy_loss, value_loss = _losses(network, data, minibatch, device)
            optimizer.zero_grad()
            (policy_loss + config.value_weight * value_loss).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(policy_loss.item())
        with torch.no_grad():
            watched = [
                _losses(network, data, minibatch, device)[0].item() * len(minibatch)
                for minibatch in _minibatches(np.flatnonzero(held), config.minibatch)
            ]
        log.write(
            0,
            {
                "clone/loss": float(np.mean(losses)),
                "clone/held_out_loss": sum(watched) / max(1, int(held.sum())),
                "clone/episodes": data.episodes,
            },
        )


def _losses(
    network: PromptNetwork, data: Demonstrations, rows: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = {k: torch.from_numpy(v[rows]).to(device) for k, v in data.observations.items()}
    inputs, values = network(batch)
    actions = torch.from_numpy(data.actions[rows]).to(device)
    returns = torch.from_numpy(data.returns[rows]).to(device)
    likelihood = network.distribution(inputs).log_prob(actions).mean()
    return -likelihood, (values - returns).square().mean()


def _minibatches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
