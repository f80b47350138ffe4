"""The shared network as an SB3 policy."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from medseg_agents.arrays.distribution import PromptDistribution
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork

SelfDistribution = TypeVar("SelfDistribution", bound="SB3PromptDistribution")


class SB3PromptDistribution(Distribution):
    """`PromptDistribution` under the names that SB3 calls."""

    def __init__(self, distribution: PromptDistribution) -> None:
        super().__init__()
        self.distribution: Any = distribution

    def proba_distribution_net(self, *args: Any, **kwargs: Any) -> Any:
        """Not used: the network makes the inputs."""
        raise NotImplementedError

    def proba_distribution(self: SelfDistribution, *args: Any, **kwargs: Any) -> SelfDistribution:
        """Not used: made with its inputs."""
        raise NotImplementedError

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log-probability, (B,), of B x 5 actions."""
        log_prob: torch.Tensor = self.distribution.log_prob(x)
        return log_prob

    def entropy(self) -> torch.Tensor:
        """Entropy, (B,)."""
        entropy: torch.Tensor = self.distribution.entropy()
        return entropy

    def sample(self) -> torch.Tensor:
        """Draw actions, B x 5."""
        actions: torch.Tensor = self.distribution.sample()
        return actions

    def mode(self) -> torch.Tensor:
        """The likeliest actions, B x 5."""
        actions: torch.Tensor = self.distribution.mode()
        return actions

    def actions_from_params(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Not used."""
        raise NotImplementedError

    def log_prob_from_params(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Not used."""
        raise NotImplementedError


class PromptPolicy(ActorCriticPolicy):
    """`PromptNetwork` where SB3 wants an actor-critic policy.

    Args:
        observation_space: Of one slot.
        action_space: Of one slot.
        lr_schedule: From SB3.
        network: Size and start of the network.
        **kwargs: SB3's own.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        network: NetworkConfig | None = None,
        **kwargs: Any,
    ) -> None:
        self.network_config = network or NetworkConfig()
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        seen: tuple[Any, Any] = self.observation_space, self.action_space
        self.network = PromptNetwork(*seen, self.network_config)
        # Channels last: about a quarter faster on a CPU.
        self.network.to(memory_format=torch.channels_last)
        make_optimizer: Any = self.optimizer_class
        self.optimizer = make_optimizer(
            self.network.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "network": self.network_config}

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions B x 5, values (B,), log-probabilities (B,)."""
        inputs, values = self.network(obs)
        distribution = self.network.distribution(inputs)
        actions = distribution.mode() if deterministic else distribution.sample()
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values, log-probabilities and entropies, (B,) each."""
        inputs, values = self.network(obs)
        distribution = self.network.distribution(inputs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The distribution of actions."""
        return SB3PromptDistribution(self.network.distribution(self.network(obs)[0]))

    def predict_values(self, obs: PyTorchObs) -> torch.Tensor:
        """Values, (B,)."""
        values: torch.Tensor = self.network(obs)[1]
        return values
