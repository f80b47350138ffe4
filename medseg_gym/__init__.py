"""Interactive medical image segmentation as gymnasium environments.

Importing registers the ids; it imports no torch. Not for clinical use.
"""

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry as _registry

__version__ = "0.1.0"

if "MedSeg-v0" not in _registry:
    _register(
        id="MedSeg-v0",
        entry_point="medseg_gym.envs.medseg:MedSegEnv",
        vector_entry_point="medseg_gym.envs.medseg_vector:MedSegVectorEnv",
    )

if "MedSegChat-v0" not in _registry:
    _register(
        id="MedSegChat-v0",
        entry_point="medseg_gym.envs.chat:MedSegChatEnv",
        vector_entry_point="medseg_gym.envs.chat_vector:MedSegChatVectorEnv",
    )
