"""Keeping what SB3's own algorithms have trained on volumes, so that it plays by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import VecMonitor, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper

from medseg_agents.policies.trained import SB3_CONFIG, SB3_WEIGHTS
from medseg_agents.runs.folder import RunFolder
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

_SEEN = ("image_size", "overview_size", "slices", "bins")


def save_policy(model: OnPolicyAlgorithm, out: str | Path) -> Path:
    """Keep a `MultiInputPolicy` trained on `MedSegVolume-v0`, which then plays as "sb3:OUT".

    SB3's own `model.save` writes pickles, which nothing here reads. This writes a checkpoint of a
    run: the weights as safetensors, the shape of the network and the view that it was trained on.

    Args:
        model: PPO or A2C of SB3 with its environment, which is a batch of `MedSegVolume-v0` in a
            `MedSegVecEnv`, or single environments in SB3's `DummyVecEnv`.
        out: Folder of the run; what is in it of other step counts stays.

    Returns:
        Folder of the checkpoint.

    Raises:
        MedSegError: Another environment, a wrapper that changes what is seen, a network that SB3's
            `MultiInputPolicy` does not make by itself, or a disk that refuses.
    """
    view, config = _view(model), _config(model)
    run = RunFolder(out)
    seen = {"env_id": "MedSegVolume-v0", "view": view}
    atomic_write(run.path / "view.json", json.dumps(seen, indent=1))

    def write(folder: Path) -> None:
        save_model(model.policy, str(folder / SB3_WEIGHTS))
        atomic_write(folder / SB3_CONFIG, json.dumps(config, indent=1))

    return run.save(model.num_timesteps, write)


def _view(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """Arguments of the environment that belong to the view."""
    envs: Any = model.get_env()
    if envs is None:
        raise MedSegError("the model has no environment, which says what it is shown: set_env")
    wrapped = envs
    while isinstance(wrapped, VecEnvWrapper):
        if not isinstance(wrapped, VecTransposeImage | VecMonitor):
            raise MedSegError(
                f"{type(wrapped).__name__} changes what the policy sees, and no checkpoint holds "
                "that; train without it, or give a PolicySpec of your own"
            )
        wrapped = wrapped.venv
    try:
        core = envs.get_attr("core")[0]
        values = {name: getattr(core.options, name) for name in _SEEN}
        return {**values, "targets": list(core.view.targets), "tools": list(core.view.codec.tools)}
    except AttributeError as error:
        raise MedSegError(
            f"the model's environment is not MedSegVolume-v0 ({error}); `medseg train sb3-ppo` "
            "trains on images"
        ) from error


def _config(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """Configuration of a model's policy, for `policies.sb3_policy.build_policy`."""
    policy: Any = model.policy
    if type(policy) is not MultiInputActorCriticPolicy:
        raise MedSegError(
            f"{type(policy).__name__} is not SB3's MultiInputPolicy of PPO and A2C; give a "
            "PolicySpec of your own"
        )
    activation, extractor = policy.activation_fn, policy.features_extractor_class
    known = getattr(torch.nn.modules.activation, activation.__name__, None) is activation
    if extractor is not CombinedExtractor or not known:
        raise MedSegError(
            f"no checkpoint holds a class of your own ({extractor.__name__}, "
            f"{activation.__name__}); give a PolicySpec of your own"
        )
    config = {
        "activation_fn": activation.__name__,
        "net_arch": policy.net_arch,
        "features_extractor_kwargs": policy.features_extractor_kwargs,
        "share_features_extractor": policy.share_features_extractor,
        "normalize_images": policy.normalize_images,
    }
    try:
        json.dumps(config)
    except TypeError as error:
        raise MedSegError(f"policy_kwargs cannot be kept: {error}") from error
    return config
