"""A counting segmenter; the model that makes calls is that of `tests/agents/conftest.py`."""

import os

import pytest

pytest.importorskip("trl")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.errors import BackboneError

VIEW = {"image_size": 64, "texts": "terse", "max_steps": 3}


class Counting(EllipseBackbone):
    """Counts decoder calls, and can be told to fail."""

    def __init__(self):
        super().__init__()
        self.calls, self.broken = 0, False

    def decode(self, rows):
        if self.broken:
            raise BackboneError("the segmenter is gone; start it again")
        self.calls += 1
        return super().decode(rows)


@pytest.fixture
def backbone():
    return Counting()
