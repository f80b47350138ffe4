"""RLlib: PPO on the native batch with the shared network, local or on a Ray cluster.

Needs the extra "rllib". `ppo_config` gives an RLlib configuration to build, tune or scale;
`train_rllib` is what `medseg train rllib-ppo` runs.
"""

import lazy_loader

# Late, so that the command line starts without Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
