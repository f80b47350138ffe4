from .options import VolumeOptions as VolumeOptions
from .single import MedSegVolumeEnv as MedSegVolumeEnv
from .vector import MedSegVolumeVectorEnv as MedSegVolumeVectorEnv
