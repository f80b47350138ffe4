"""A trained network as a policy that plays: `sb3:RUN` and `rllib:RUN`."""

from __future__ import annotations

import hashlib
import json
import typing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.policies.options import require_argument
from medseg_agents.policies.specs import VOLUME_ENVS, PolicySpec
from medseg_agents.policies.trained import (
    NETWORK_CONFIG,
    NETWORK_WEIGHTS,
    SB3_WEIGHTS,
    TrainedPolicy,
)
from medseg_agents.runs.folder import find_checkpoint, previous_checkpoint
from medseg_gym.backbones.protocol import choose_device
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.errors import PolicyError
from medseg_gym.option_values import convert_options, declared_options
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec
from medseg_gym.storage.atomic_write import atomic_write

if typing.TYPE_CHECKING:  # it imports SB3, which networks of images do not need
    from medseg_agents.policies.sb3_policy import SB3VolumePolicy

_UNUSABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)


class NetworkPolicy(TrainedPolicy):
    """Plays the array view with a `PromptNetwork`.

    Args:
        network: Trained.
        name: See `TrainedPolicy`.
        sampled: Likewise.
        digest: Likewise.
    """

    def __init__(
        self, network: PromptNetwork, name: str, sampled: bool = False, digest: str = ""
    ) -> None:
        super().__init__(name, sampled, digest)
        self.network = network.eval()

    def act(self, observations: Observations) -> np.ndarray:
        """Choose actions, (n, 5) int64; a slot that was never reset gets the likeliest.

        Raises:
            PolicyError: The network's outputs are not finite.
        """
        device = next(self.network.parameters()).device
        batch = {key: torch.from_numpy(value).to(device) for key, value in observations.items()}
        with torch.inference_mode():
            inputs = self.network(batch)[0]
            if not bool(inputs.sum(dtype=torch.float64).isfinite()):
                # The likeliest of NaN is the first tool: it would be scored as a policy.
                raise PolicyError(
                    f"{self.name}: the network's outputs are not finite; its training has "
                    "diverged: take an earlier checkpoint, or train with a lower learning rate"
                )
            distribution = self.network.distribution(inputs)
            if not self.sampled:
                return distribution.mode().cpu().numpy()
            draws = np.full((len(observations["target"]), distribution.num_draws), 0.5)
            for slot in range(len(draws)):
                if slot in self._generators:
                    draws[slot] = self._generators[slot].random(distribution.num_draws)
            return distribution.sample(torch.from_numpy(draws).to(device)).cpu().numpy()


def save_network(network: PromptNetwork, config: NetworkConfig, folder: Path) -> None:
    """Write a network into a checkpoint's folder, as safetensors and JSON."""
    state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    save_file(state, folder / NETWORK_WEIGHTS)
    atomic_write(folder / NETWORK_CONFIG, json.dumps(asdict(config), indent=1))


def load_network(
    folder: Path, observation_space: spaces.Dict, action_space: spaces.MultiDiscrete
) -> PromptNetwork:
    """Read a network for a view.

    Raises:
        PolicyError: The checkpoint's files are missing, or do not fit the view.
    """
    config = read_network_config(folder)
    try:
        network = PromptNetwork(observation_space, action_space, config)
    except _UNUSABLE as error:
        raise _unusable(folder, error) from error
    load_weights(network, folder)
    return network


def load_weights(network: PromptNetwork, folder: Path) -> None:
    """Give a network the weights of a checkpoint.

    Raises:
        PolicyError: The file is missing or damaged, or of another network.
    """
    try:
        network.load_state_dict(load_file(folder / NETWORK_WEIGHTS))
    except _UNUSABLE as error:
        raise _unusable(folder, error) from error


def read_network_config(folder: Path) -> NetworkConfig:
    """Read size and tools of a checkpoint's network.

    Raises:
        PolicyError: The file is missing or damaged.
    """
    try:
        values = json.loads((folder / NETWORK_CONFIG).read_text(encoding="utf-8"))
        return NetworkConfig(**{**values, "tools": tuple(values["tools"])})
    except _UNUSABLE as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> PolicyError:
    return PolicyError(f"{folder}: no network of this view: {error}{previous_checkpoint(folder)}")


@dataclass(frozen=True)
class PlayOptions:
    """Options of playing with a trained network."""

    sampled: bool = False
    """Draw actions instead of taking the likeliest."""

    device: str = "auto"
    """Of the network."""


@takes_spec
def network_policy(spec: Spec) -> PolicySpec:
    """Read "sb3:RUN" or "rllib:RUN", with `PlayOptions`: the newest checkpoint of a run.

    A run of `MedSegVolume-v0` is what `medseg_agents.arrays.sb3.save_policy` has written.

    Raises:
        PolicyError: The run or its checkpoint cannot be used, or an option that does not exist.
    """
    require_argument(spec)
    declared = declared_options(PlayOptions)
    where = f"{spec.kind}:{spec.argument}"
    options = PlayOptions(**convert_options(where, spec.options, declared, PolicyError))
    _refuse_pickles(Path(spec.argument))
    folder, seen = find_checkpoint(spec.argument)
    of_volumes = seen["env_id"] in VOLUME_ENVS
    weights = folder / (SB3_WEIGHTS if of_volumes else NETWORK_WEIGHTS)
    if not weights.is_file():
        raise PolicyError(f"{folder}: {weights.name} is missing")
    digest = hashlib.blake2b(weights.read_bytes(), digest_size=8).hexdigest()

    def build(envs: Any) -> NetworkPolicy | SB3VolumePolicy:
        spaces = envs.single_observation_space, envs.single_action_space
        if of_volumes:
            from medseg_agents.policies.sb3_policy import SB3VolumePolicy, load_policy

            trained = load_policy(folder, *spaces).to(choose_device(options.device))
            return SB3VolumePolicy(trained, spec.text, options.sampled, digest)
        network = load_network(folder, *spaces).to(choose_device(options.device))
        return NetworkPolicy(network, spec.text, options.sampled, digest)

    return PolicySpec(spec.text, build, seen["env_id"], seen["view"])


def _refuse_pickles(path: Path) -> None:
    """Refuse the files that SB3 and RLlib write themselves, with the way to play them."""
    own = ", or build it in a PolicySpec of your own, ./mine.py:SPEC"
    if path.suffix == ".zip":
        raise PolicyError(
            f"{path} is SB3's own file, which holds pickles; keep what was trained on "
            f"MedSegVolume-v0 with medseg_agents.arrays.sb3.save_policy(model, RUN){own}"
        )
    if any((path / name).exists() for name in ("rllib_checkpoint.json", "algorithm_state.pkl")):
        raise PolicyError(
            f"{path} is RLlib's own checkpoint, which holds pickled classes and connectors; play "
            f"a run of `medseg train rllib-ppo`{own}"
        )
