"""The contract of backbones that segment a whole volume at once, from prompts on any of its slices.

A backbone says so by having the method `segment_volume`. Every prompt then changes the masks of all
slices, and there is nothing left to carry from slice to slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from medseg_gym.backbones.protocol import Backbone
from medseg_gym.prompts.volumes import SlicePrompt


@runtime_checkable
class VolumeBackbone(Backbone, Protocol):
    """A backbone that segments whole volumes; its `encode` and `decode` may refuse."""

    def segment_volume(
        self, image: np.ndarray, key: str, prompts: Sequence[SlicePrompt]
    ) -> np.ndarray:
        """Segment one target; the same arguments give the same mask, whatever was asked before.

        Args:
            image: (D, H, W) or (D, H, W, 3) uint8.
            key: Hash of its voxels.
            prompts: At least one, in the order in which they were made; of boxes the one in force
                of each slice.

        Returns:
            (D, H, W) bool.

        Raises:
            BackboneError: It failed, or gave what is no mask.
        """
        ...
