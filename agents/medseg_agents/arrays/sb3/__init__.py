"""Stable-Baselines3: an adapter over the native batch, the shared network, PPO.

Needs the extra "sb3". `MedSegVecEnv` works with every algorithm of SB3 that takes MultiDiscrete
actions; `train_sb3` is what `medseg train sb3-ppo` runs.
"""

import lazy_loader

# Late, so that the command line starts without SB3.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
