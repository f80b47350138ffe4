from .chat import MedSegVolumeChatEnv as MedSegVolumeChatEnv
from .chat_options import VolumeChatOptions as VolumeChatOptions
from .chat_vector import MedSegVolumeChatVectorEnv as MedSegVolumeChatVectorEnv
from .options import VolumeOptions as VolumeOptions
from .single import MedSegVolumeEnv as MedSegVolumeEnv
from .vector import MedSegVolumeVectorEnv as MedSegVolumeVectorEnv
