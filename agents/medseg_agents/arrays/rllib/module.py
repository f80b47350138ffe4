"""The shared network as an RLModule, and its distribution under RLlib's names."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.distribution import Distribution
from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from medseg_agents.arrays.distribution import PromptDistribution
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork


class PromptActions(Distribution):
    """`PromptDistribution` as RLlib calls it.

    Args:
        logits: B x inputs.
        **view: `tools`, `bins` and `cells` of `PromptDistribution`.
    """

    def __init__(self, logits: torch.Tensor, **view: Any) -> None:
        super().__init__()
        self.distribution = PromptDistribution(logits, **view)

    def sample(self, *, sample_shape: Any = None, **kwargs: Any) -> torch.Tensor:
        """Draw actions, B x 5."""
        return self.distribution.sample()

    def rsample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Not there: actions are discrete."""
        raise NotImplementedError("actions are discrete: there is no reparametrised sample")

    def logp(self, value: Any, **kwargs: Any) -> torch.Tensor:
        """Log-probability, (B,), of B x 5 actions."""
        return self.distribution.log_prob(value)

    def entropy(self, **kwargs: Any) -> torch.Tensor:
        """Entropy, (B,)."""
        return self.distribution.entropy()

    def kl(self, other: Any, **kwargs: Any) -> torch.Tensor:
        """KL divergence from another, (B,)."""
        return self.distribution.kl(other.distribution)

    def to_deterministic(self) -> TorchDeterministic:
        """The likeliest actions."""
        return TorchDeterministic(loc=self.distribution.mode())

    @staticmethod
    def required_input_dim(space: Any, **kwargs: Any) -> int:
        """Not used: the network decides."""
        raise NotImplementedError

    @classmethod
    def from_logits(cls, logits: Any, **kwargs: Any) -> PromptActions:
        """Build from a row of inputs per action."""
        return cls(logits, **kwargs)


class PromptModule(TorchRLModule, ValueFunctionAPI):
    """`PromptNetwork` where RLlib wants an RLModule; `model_config` holds a `NetworkConfig`.

    Recurrent shapes and other spaces are refused by the network.
    """

    def setup(self) -> None:
        """Build the network."""
        config: dict[str, Any] = dict(self.model_config)  # type: ignore[arg-type]
        given = {f.name: config[f.name] for f in fields(NetworkConfig) if f.name in config}
        spaces: tuple[Any, Any] = self.observation_space, self.action_space
        self.network = PromptNetwork(*spaces, NetworkConfig(**given))
        self.network.to(memory_format=torch.channels_last)
        actions: Any = PromptActions
        self.action_dist_cls = actions.get_partial_dist_cls(
            tools=self.network.tools, bins=self.network.bins, cells=self.network.cells
        )

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        inputs, values = self.network(batch[Columns.OBS])
        # The values ride along, so that the learner does not compute them a second time.
        return {Columns.ACTION_DIST_INPUTS: inputs, Columns.EMBEDDINGS: values}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {Columns.ACTION_DIST_INPUTS: self.network(batch[Columns.OBS])[0]}

    _forward_exploration = _forward_inference

    def compute_values(
        self, batch: dict[str, Any], embeddings: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Values, (B,); `embeddings` are those of `_forward`, which are the values themselves."""
        return self.network(batch[Columns.OBS])[1] if embeddings is None else embeddings
