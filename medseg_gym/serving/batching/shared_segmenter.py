"""The service's segmenter as the backbone of games and policies in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg_gym.backbones.remote.ends import RemoteBackbone
from medseg_gym.backbones.remote.wire import WireRow
from medseg_gym.serving.batching.segmenter import Segmenter


class SharedSegmenter(RemoteBackbone):
    """A backbone whose rows share decoder calls with those of all clients of the service."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__(segmenter.facts)
        self._segmenter = segmenter

    def _encode(self, images: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, int]]:
        return self._segmenter.encode_now(images)

    def _decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._segmenter.decode_now(rows, images)
