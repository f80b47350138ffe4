"""Tools of an agent in a volume, and their codecs: prompts on a slice, look, propagate."""

from medseg_gym.prompts.volumes.array_codec import VolumeCodec
from medseg_gym.prompts.volumes.tool_calls import (
    encode_volume_call,
    read_volume_answer,
    volume_call_names,
)
from medseg_gym.prompts.volumes.types import (
    VOLUME_TOOLS,
    Look,
    Propagate,
    SlicePrompt,
    VolumePrompt,
)

__all__ = [
    "VOLUME_TOOLS",
    "Look",
    "Propagate",
    "SlicePrompt",
    "VolumeCodec",
    "VolumePrompt",
    "encode_volume_call",
    "read_volume_answer",
    "volume_call_names",
]
