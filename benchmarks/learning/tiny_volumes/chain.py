"""Sizes of the chain on volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from benchmarks.learning.chain_sizes import Chain
from medseg_gym.envs.volumes.chat_options import VolumeChatOptions


@dataclass(frozen=True, kw_only=True)
class VolumeChain(Chain):
    """Sizes of the stages, see `tiny_chain.Chain`; an image is a volume here.

    Args:
        overview_size: Side of each of the overview's three squares.
    """

    env: ClassVar[str] = "MedSegVolume-v0"
    per_image: ClassVar[int] = 6
    shard: ClassVar[int] = 400

    cases: str = "phantoms-volume"
    overview_size: int = 48
    experts: int = 120
    annotator: str = "oracle-key-slice"
    images: int = 800
    first_steps: int = 500
    mixed_steps: int = 220
    max_steps: int = 4
    test: int = 72
    num_envs: int = 12

    @property
    def chat(self) -> VolumeChatOptions:
        """Return the view of the environment that the model gets."""
        return VolumeChatOptions(
            image_size=self.image_size,
            overview_size=self.overview_size,
            overlay=self.overlay,
            texts="terse",
            max_steps=self.max_steps,
        )
