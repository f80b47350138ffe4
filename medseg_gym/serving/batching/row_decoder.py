"""The interface between the stateless routes and what decodes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from medseg_gym.backbones.remote.wire import ServedFacts, WireRow


class RowDecoder(Protocol):
    """Who encodes and decodes for the stateless routes."""

    @property
    def facts(self) -> ServedFacts:
        """Of the backbone behind it."""
        ...

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash; the `input_size` of each."""
        ...

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The `input_size` of those images that are held."""
        ...

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, h, w) float32 and predicted IoU (B,) float32; `MissingImages` may come."""
        ...
