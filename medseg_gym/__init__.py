"""Interactive medical image segmentation as gymnasium environments.

Importing registers the ids; it imports no torch. The public names `Case`, `CaseSource`,
`load_cases` and `check_vector_env` are imported when they are first used. Not for clinical use.
"""

import lazy_loader as _lazy_loader
from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry as _registry

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)

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

if "MedSegVolume-v0" not in _registry:
    _register(
        id="MedSegVolume-v0",
        entry_point="medseg_gym.envs.volumes.single:MedSegVolumeEnv",
        vector_entry_point="medseg_gym.envs.volumes.vector:MedSegVolumeVectorEnv",
    )

if "MedSegVolumeChat-v0" not in _registry:
    _register(
        id="MedSegVolumeChat-v0",
        entry_point="medseg_gym.envs.volumes.chat:MedSegVolumeChatEnv",
        vector_entry_point="medseg_gym.envs.volumes.chat_vector:MedSegVolumeChatVectorEnv",
    )
