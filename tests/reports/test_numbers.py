"""A segmenter whose logits are not numbers never makes a score."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import medseg_gym  # noqa: F401
from medseg_gym.backbones import EllipseBackbone
from medseg_gym.backbones.protocol import Prediction
from medseg_gym.cases import Case
from medseg_gym.errors import MedSegError


class BrokenHead(EllipseBackbone):
    """The ellipse, but logits on images of 48 x 64 pixels become one value."""

    name = "broken-head"

    def __init__(self, value):
        super().__init__()
        self.value = value

    def decode(self, rows):
        logits, iou = super().decode(rows)
        for number, row in enumerate(rows):
            if row.embedding.image_size == (48, 64):
                logits[number] = self.value
        return Prediction(logits, iou)


def square(key, height, width, present=True):
    image = np.random.default_rng(1).integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[12:30, 20:44] = present
    image[mask] += 120
    return Case(key, image, mask, "bright square", synthetic=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([square("ill-case", 48, 64, present=False)], id="absent"),
        pytest.param([square("ill-case", 48, 64)], id="present"),
        pytest.param([square("well-case", 64, 48), square("ill-case", 48, 64)], id="one_row"),
    ],
)
def test_it_raises_naming_backbone_and_case(cases, value):
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=len(cases),
        cases=cases,
        split=None,
        backbone=BrokenHead(value),
        image_size=32,
    )
    envs.reset(options={"case": [case.key for case in cases]})
    box = np.array([0, 200, 200, 800, 800])
    with pytest.raises(MedSegError) as error:
        envs.step(np.stack([box] * len(cases)))
    assert "broken-head" in str(error.value) and "ill-case" in str(error.value)
    assert "well-case" not in str(error.value)
