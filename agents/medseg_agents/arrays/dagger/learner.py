"""The gradient steps: network, a head that outlines the target, and their optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.dagger.labels import place_targets
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.runs.folder import previous_checkpoint
from medseg_gym.backbones.protocol import choose_device
from medseg_gym.errors import MedSegError

_STATE = "learner.safetensors"
_UNUSABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


class Learner:
    """Fits a network to labelled states.

    Args:
        config: Of the run.
        observation_space: Of one slot.
        action_space: Of one slot.
    """

    def __init__(
        self,
        config: DaggerConfig,
        observation_space: spaces.Dict,
        action_space: spaces.MultiDiscrete,
    ) -> None:
        self.config, self.device = config, torch.device(choose_device(config.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = PromptNetwork(observation_space, action_space, NetworkConfig.of(config))
            self.truth = nn.Conv2d(self.network.width, self.network.split**2, 1)
        for module in (self.network, self.truth):
            module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = [*self.network.parameters(), *self.truth.parameters()]
        self.optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate)

    def infer(self, observation: dict[str, Any]) -> Any:
        """Return the distribution of actions for observations as arrays."""
        batch = {key: torch.from_numpy(value) for key, value in observation.items()}
        with torch.inference_mode(), self._autocast():
            inputs = self.network({k: v.to(self.device) for k, v in batch.items()})[0]
            return self.network.distribution(inputs)

    def update(self, batch: dict[str, Any], progress: float) -> dict[str, float]:
        """Take one gradient step.

        Args:
            batch: From `StateBuffer.draw`.
            progress: Share of the run that is done, 0..1.

        Returns:
            Losses, and the share of states whose likeliest tool is the annotator's.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(progress)
        observation = {k: v.to(self.device) for k, v in batch["observation"].items()}
        actions, clicks, truth, returns = (
            batch[name].to(self.device) for name in ("actions", "clicks", "truth", "returns")
        )
        config = self.config
        with self._autocast():
            inputs, values, features = self.network.look(observation)
            outline = functional.pixel_shuffle(self.truth(features), self.network.split)
        distribution = self.network.distribution(inputs)
        places = place_targets(
            actions, clicks, self.network.tools, self.network.bins, config.corner_blur
        )
        tools, apart = distribution.cross_entropy(actions[:, 0], places)
        value_loss = (values.float() - returns).square().mean()
        truth_loss = outline_loss(outline.float()[:, 0], truth.float() / 255)
        loss = tools.mean() + apart.mean()
        loss = loss + config.value_weight * value_loss + config.truth_weight * truth_loss
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self.optimizer.step()
        right = distribution.tool_logp.argmax(1) == actions[:, 0]
        return {
            "train/loss": loss.item(),
            "train/tool_loss": tools.mean().item(),
            "train/place_loss": apart.mean().item(),
            "train/value_loss": value_loss.item(),
            "train/truth_loss": truth_loss.item(),
            "train/tool_agreement": right.float().mean().item(),
            "train/grad_norm": norm.item(),
        }

    def save(self, folder: Path) -> None:
        """Write what resuming needs beside the network: the head, and the optimiser's moments."""
        state = {f"truth.{name}": value for name, value in self.truth.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        save_file({k: v.contiguous().cpu() for k, v in state.items()}, folder / _STATE)

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            MedSegError: The file is missing or damaged, or of another network.
        """
        try:
            state = load_file(folder / _STATE)
            head = {k.removeprefix("truth."): v for k, v in state.items() if k[:6] == "truth."}
            self.truth.load_state_dict(head)
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in state.items():
                if key.startswith("adam."):
                    _, number, name = key.split(".")
                    moments.setdefault(int(number), {})[name] = value
            adam = self.optimizer.state_dict()
            self.optimizer.load_state_dict({**adam, "state": moments})
        except _UNUSABLE as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            hint = previous_checkpoint(folder)
            raise MedSegError(f"{folder / _STATE} cannot be resumed from: {why}{hint}") from error

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.is_lower)


def outline_loss(logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice loss of an outline.

    Dice counts a small structure as much as a large one, which cross-entropy does not.

    Args:
        logits: B x H x W.
        share: B x C x C, of each cell, how much the target covers, 0..1.
    """
    if logits.shape[-1] != share.shape[-1]:
        logits = functional.adaptive_avg_pool2d(logits[:, None], share.shape[-1])[:, 0]
    covered = logits.sigmoid()
    both = (covered * share).sum((1, 2))
    dice = (2 * both + 1) / (covered.sum((1, 2)) + share.sum((1, 2)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, share) + (1 - dice).mean()
