"""SB3's own MultiInputPolicy as a policy that plays volumes, read without a pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_model
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from medseg_agents.policies.trained import SB3_CONFIG, SB3_WEIGHTS, TrainedPolicy
from medseg_agents.runs.folder import previous_checkpoint
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.errors import PolicyError

_UNUSABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)


class SB3VolumePolicy(TrainedPolicy):
    """Plays the array view of volumes with SB3's `MultiInputPolicy`.

    Args:
        policy: Trained.
        name: See `TrainedPolicy`.
        sampled: Likewise.
        digest: Likewise.
    """

    def __init__(
        self,
        policy: MultiInputActorCriticPolicy,
        name: str,
        sampled: bool = False,
        digest: str = "",
    ) -> None:
        super().__init__(name, sampled, digest)
        self.policy = policy
        self.policy.set_training_mode(False)

    def act(self, observations: Observations) -> np.ndarray:
        """Choose actions, (n, 6) int64; a slot that was never reset gets the likeliest.

        Raises:
            PolicyError: The network's outputs are not finite.
        """
        seen: Any = self.policy.observation_space
        assert isinstance(seen, spaces.Dict)
        targets = np.arange(spaces.flatdim(seen["target"]))
        one_hot = (np.asarray(observations["target"])[:, None] == targets).astype(np.float32)
        batch, _ = self.policy.obs_to_tensor({**observations, "target": one_hot})
        with torch.inference_mode():
            try:
                made: Any = self.policy.get_distribution(batch).distribution
            except ValueError as error:  # torch's, of logits that are NaN
                raise PolicyError(
                    f"{self.name}: the network's outputs are not finite; its training has "
                    f"diverged: take an earlier checkpoint, or train with a lower learning rate "
                    f"({error})"
                ) from error
            shares = [one.probs.double().cpu().numpy() for one in made]
        actions = np.stack([share.argmax(axis=1) for share in shares], axis=1)
        if self.sampled:
            for slot, generator in self._generators.items():
                if slot < len(actions):
                    actions[slot] = [
                        min(np.searchsorted(share[slot].cumsum(), draw, "right"), len(share[0]) - 1)
                        for share, draw in zip(shares, generator.random(len(shares)), strict=True)
                    ]
        return actions


def shown_to_sb3(space: spaces.Dict) -> spaces.Dict:
    """Return a view's observation space as SB3 sees it: one-hot targets, channels first."""
    shown: dict[str, spaces.Space[Any]] = {}
    for name, one in space.spaces.items():
        if name == "target":
            one = spaces.Box(0, 1, (spaces.flatdim(one),), np.float32)
        elif (
            isinstance(one, spaces.Box)
            and is_image_space(one)
            and not is_image_space_channels_first(one)
        ):
            one = VecTransposeImage.transpose_space(one, name)
        shown[name] = one
    return spaces.Dict(shown)


def build_policy(
    observation_space: spaces.Dict, action_space: spaces.Space[Any], config: dict[str, Any]
) -> MultiInputActorCriticPolicy:
    """Make the policy that a configuration describes, with fresh weights.

    Args:
        observation_space: Of one slot.
        action_space: Of one slot.
        config: As in `SB3_CONFIG`.
    """
    activation = getattr(torch.nn.modules.activation, config["activation_fn"])
    if not (isinstance(activation, type) and issubclass(activation, torch.nn.Module)):
        raise ValueError(f"{config['activation_fn']!r} is no activation of torch.nn")
    return MultiInputActorCriticPolicy(
        shown_to_sb3(observation_space),
        action_space,
        lambda _: 0.0,
        net_arch=config["net_arch"],
        activation_fn=activation,
        features_extractor_kwargs=config["features_extractor_kwargs"],
        share_features_extractor=config["share_features_extractor"],
        normalize_images=config["normalize_images"],
    )


def load_policy(
    folder: Path, observation_space: spaces.Dict, action_space: spaces.Space[Any]
) -> MultiInputActorCriticPolicy:
    """Read a policy for a view.

    Raises:
        PolicyError: The checkpoint's files are missing or damaged, or do not fit the view.
    """
    try:
        config = json.loads((folder / SB3_CONFIG).read_text(encoding="utf-8"))
        policy = build_policy(observation_space, action_space, config)
        load_model(policy, folder / SB3_WEIGHTS)
    except (*_UNUSABLE, SafetensorError) as error:
        hint = previous_checkpoint(folder)
        raise PolicyError(f"{folder}: no policy of this view: {error}{hint}") from error
    return policy
