"""Fixtures for backbones: images of awkward sizes, and a registry that forgets."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gym.backbones import registry


@pytest.fixture(scope="session")
def awkward_images() -> tuple[np.ndarray, ...]:
    """Wide, tall, odd, square and tiny images; the last but one is grey."""
    rng = np.random.default_rng(7)
    result = []
    for height, width in ((40, 90), (75, 31), (53, 67), (64, 64), (5, 7)):
        y, x = np.mgrid[:height, :width]
        waves = 110 + 60 * np.sin(x / 5)[..., None] + 40 * np.cos(y / 4)[..., None]
        image = waves + rng.normal(0, 25, (height, width, 3))
        result.append(image.clip(0, 255).astype(np.uint8))
    result[3] = np.repeat(result[3][..., :1], 3, axis=2)
    return tuple(result)


@pytest.fixture
def fresh_registry(monkeypatch):
    """Forget after each test what it registered or loaded."""
    monkeypatch.setattr(registry, "_LOADED", {})
    with registry.BACKBONES.temporarily():
        yield registry
