"""A backbone that keeps what it was asked, and actions of every kind."""

from __future__ import annotations

import pytest

from medseg_gym.backbones import EllipseBackbone


class SpyBackbone(EllipseBackbone):
    """Draws ellipses; keeps the rows of every decode and the images of every encode."""

    takes_mask_input = True

    def __init__(self) -> None:
        super().__init__()
        self.decodes: list[list] = []
        self.encoded: list[int] = []
        self.resizes = 0

    def encode(self, images):
        self.encoded.append(len(images))
        return super().encode(images)

    def decode(self, rows):
        self.decodes.append(list(rows))
        return super().decode(rows)

    def to_image(self, logits, embeddings):
        self.resizes += 1
        return super().to_image(logits, embeddings)


@pytest.fixture
def spy() -> SpyBackbone:
    return SpyBackbone()
