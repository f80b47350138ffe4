"""RLlib: PPO on the native batch with the shared network, local or on a Ray cluster.

Needs the extra "rllib". `ppo_config` gives an RLlib configuration to build, tune or scale;
`train_rllib` is what `medseg train rllib-ppo` runs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_agents.arrays.rllib.config import RLlibPPOConfig
    from medseg_agents.arrays.rllib.module import PromptModule
    from medseg_agents.arrays.rllib.ppo import ppo_config, restore
    from medseg_agents.arrays.rllib.train import train_rllib

_WHERE = {
    "PromptModule": "module",
    "RLlibPPOConfig": "config",
    "ppo_config": "ppo",
    "restore": "ppo",
    "train_rllib": "train",
}

__all__ = ["PromptModule", "RLlibPPOConfig", "ppo_config", "restore", "train_rllib"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line starts without Ray.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
