"""What an agent can do in a volume, and its codec: prompts on a slice, look, propagate."""

from medseg_gym.prompts.volumes.array_codec import VolumeCodec
from medseg_gym.prompts.volumes.types import (
    VOLUME_TOOLS,
    Look,
    Propagate,
    SlicePrompt,
    VolumePrompt,
)

__all__ = ["VOLUME_TOOLS", "Look", "Propagate", "SlicePrompt", "VolumeCodec", "VolumePrompt"]
