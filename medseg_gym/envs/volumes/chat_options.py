"""The arguments of the chat environment on volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.volumes.options import VolumeOptions


@dataclass(frozen=True, kw_only=True)
class VolumeChatOptions(VolumeOptions, ChatOptions):
    """Arguments of `gym.make("MedSegVolumeChat-v0", ...)` and its vector form.

    Those of `MedSegVolume-v0` and of `MedSegChat-v0`, but those that belong to arrays.
    """

    noun: ClassVar[str] = "MedSegVolumeChat"
    refused: ClassVar[Mapping[str, str]] = {
        **VolumeOptions.refused,
        **ChatOptions.refused,
        "slices": "tool calls name slices by their index",
    }

    of_view: ClassVar[tuple[str, ...]] = (*ChatOptions.of_view, "overview_size")

    image_size: int = 512
    """Side P of the square slice that the model is shown, in pixels."""

    overview_size: int = 128
    """Side O of each of the overview's three squares, in pixels."""
