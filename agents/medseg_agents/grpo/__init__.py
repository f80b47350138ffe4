"""Reinforcement learning of policies that chat: GRPO and turn-level PPO on RLlib.

`GRPOConfig` and `ChatPPOConfig` are RLlib configurations of one algorithm; `train_chat` is what
`medseg train grpo` and `medseg train chat-ppo` run. Needs the extras "rllib" and "llm".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg_agents.grpo.algorithm import ChatAlgorithm, ChatPPOConfig, GRPOConfig
    from medseg_agents.grpo.module import HFChatModule
    from medseg_agents.grpo.rollout.runner import ChatEnvRunner
    from medseg_agents.grpo.train import train_chat

_WHERE = {
    "ChatAlgorithm": "algorithm",
    "ChatEnvRunner": "rollout.runner",
    "ChatPPOConfig": "algorithm",
    "GRPOConfig": "algorithm",
    "HFChatModule": "module",
    "train_chat": "train",
}

__all__ = [
    "ChatAlgorithm",
    "ChatEnvRunner",
    "ChatPPOConfig",
    "GRPOConfig",
    "HFChatModule",
    "train_chat",
]


def __getattr__(name: str) -> Any:
    # Late, so that the command line starts without Ray.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
