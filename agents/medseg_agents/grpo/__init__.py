"""Reinforcement learning of policies that chat: GRPO and turn-level PPO on RLlib.

`GRPOConfig` and `ChatPPOConfig` are RLlib configurations of one algorithm; `train_chat` is what
`medseg train grpo` and `medseg train chat-ppo` run. Needs the extras "rllib" and "llm".
"""

import lazy_loader

# Late, so that the command line starts without Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
