"""Stable-Baselines3: an adapter over the native batch, the shared network, PPO.

Needs the extra "sb3". `MedSegVecEnv` works with every algorithm of SB3 that takes MultiDiscrete
actions; `train_sb3` is what `medseg train sb3-ppo` runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_agents.arrays.sb3.config import SB3PPOConfig
    from medseg_agents.arrays.sb3.policy import PromptPolicy
    from medseg_agents.arrays.sb3.train import make_model, make_vec_env, train_sb3
    from medseg_agents.arrays.sb3.vec_env import MedSegVecEnv

_WHERE = {
    "MedSegVecEnv": "vec_env",
    "PromptPolicy": "policy",
    "SB3PPOConfig": "config",
    "make_model": "train",
    "make_vec_env": "train",
    "train_sb3": "train",
}

__all__ = [
    "MedSegVecEnv",
    "PromptPolicy",
    "SB3PPOConfig",
    "make_model",
    "make_vec_env",
    "train_sb3",
]


def __getattr__(name: str) -> Any:
    # Late, so that the command line starts without SB3.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
