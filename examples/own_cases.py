"""Use your own images: a folder of images and masks on disk, or cases made in memory.

python examples/own_cases.py
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case, CaseSource, load_cases


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright square on a dark ground: (64, 64, 3) uint8 and its (64, 64) bool mask."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
    top, left = rng.integers(4, 36, 2)
    mask = np.zeros((64, 64), bool)
    mask[top : top + 20, left : left + 20] = True
    image[mask] += 120
    return image, mask


# 1. Files. images/NAME.png and masks/NAME.png is one of the layouts that need no option.
folder = Path("squares")
for number in range(12):
    image, mask = draw(number)
    for name, pixels in (("images", image), ("masks", mask.astype(np.uint8) * 255)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"square{number:02}.png")

spec = f"folder:{folder}?target=bright square&splits=50,20,30"
for split in ("train", "val", "test"):
    print(split, len(load_cases(spec, split)), "cases")  # `medseg cases check SPEC` says more


# 2. Memory. A source gives keys, the vocabulary of targets, and case number i; it may be lazy.
class Squares(CaseSource):
    """A thousand squares, drawn when they are asked for."""

    keys = tuple(f"square-{i}" for i in range(1000))
    targets = ("bright square",)

    def __getitem__(self, index: int) -> Case:
        """Draw case `index`."""
        image, mask = draw(index)
        return Case(self.keys[index], image, mask, "bright square", synthetic=True)


for cases in (spec, Squares(), [Squares()[7]]):
    env = gym.make("MedSeg-v0", cases=cases, backbone="ellipse")
    observation, info = env.reset(seed=0)
    bright = observation["image"].mean(2) > 150
    y, x = np.nonzero(bright)
    box = [0, *(np.array([x.min(), y.min(), x.max(), y.max()]) * 1000 // 128)]
    *_, info = env.step(box)
    print(info["case"], f"Dice {info['dice']:.2f}")
    env.close()
