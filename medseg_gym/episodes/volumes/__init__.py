"""Episodes on volumes: prompts on slices, propagation through the others, Dice in 3D."""

from medseg_gym.episodes.volumes.engine import VolumeEngine, volume_info
from medseg_gym.episodes.volumes.episode import (
    SliceState,
    VolumeEpisode,
    VolumeState,
    VolumeStep,
)
from medseg_gym.episodes.volumes.propagation import PropagationOptions

__all__ = [
    "PropagationOptions",
    "SliceState",
    "VolumeEngine",
    "VolumeEpisode",
    "VolumeState",
    "VolumeStep",
    "volume_info",
]
