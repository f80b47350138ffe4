"""The interface between the stateless routes and what decodes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from medseg_gym.backbones.remote.wire import ServedFacts, WireRow


class RowDecoder(Protocol):
    """Encoder and decoder of stateless requests."""

    @property
    def facts(self) -> ServedFacts:
        """Properties of the backbone."""
        ...

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash; return the `input_size` of each."""
        ...

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the `input_size` of those images that are held."""
        ...

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode rows.

        Returns:
            Logits (B, h, w) float32 and predicted IoU (B,) float32.

        Raises:
            MissingImages: Images that are neither held nor given.
        """
        ...
