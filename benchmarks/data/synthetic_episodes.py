"""Synthetic episodes for the trajectory store: the same ones wherever they are drawn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from medseg_gym.prompts import AddBox, AddPoint, Prompt, Stop
from medseg_gym.trajectories.store.mask_codec import pack_mask
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep, Trajectory

SIDE = 256


def _blob(generator: np.random.Generator, side: int) -> np.ndarray:
    """An ellipse with a wavy outline, (side, side) bool."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    centre_x, centre_y = generator.uniform(0.3, 0.7, 2)
    radius_x, radius_y = generator.uniform(0.05, 0.25, 2)
    angle = np.arctan2(y - centre_y, x - centre_x)
    wave = 1 + 0.1 * np.sin(angle * generator.integers(3, 9))
    mask: np.ndarray = ((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 < wave
    return mask


@lru_cache(maxsize=4)
def _blobs(side: int) -> list[np.ndarray]:
    """A stock of masks; an episode shifts them, so that no two of its masks are alike."""
    generator = np.random.default_rng(side)
    return [_blob(generator, side) for _ in range(32)]


@lru_cache(maxsize=10_000)
def synthetic_episode(case: str, seed: int, side: int = SIDE) -> Trajectory:
    """An episode that depends on the arguments alone."""
    generator = np.random.default_rng([seed, *case.encode()])

    def mask_now() -> bytes:
        blob = _blobs(side)[int(generator.integers(32))]
        return pack_mask(np.roll(blob, generator.integers(-side // 4, side // 4, 2), (0, 1)))

    length = int(generator.integers(2, 6))
    facts = EpisodeFacts(
        key=EpisodeKey(case, seed, 0),
        cases="phantoms",
        split="train",
        source="made up",
        group=case,
        target="a blob",
        modality="CT",
        synthetic=True,
        height=side,
        width=side,
        image_hash="0" * 32,
        truth=mask_now(),
        policy="nobody",
        sees_truth=True,
        backbone="none",
        checkpoint=None,
        checkpoint_hash=None,
        options={"max_steps": 5, "bins": 1000, "reward": "dice_gain"},
    )
    steps, mask = [], b""
    for number in range(length):
        last = number == length - 1
        fractions = generator.random(4).tolist()
        prompt: Prompt = AddPoint(fractions[0], fractions[1], bool(generator.integers(2)))
        prompt = Stop() if last else prompt if number else AddBox(*fractions)
        mask = mask if last else mask_now()
        reward, dice = generator.random(2).tolist()
        terms = {"dice_gain": reward, "cost": 0.01}
        steps.append(
            RecordedStep(
                prompt, True, "", reward, terms, dice, dice / 2, mask, last, last, truncated=False
            )
        )
    return Trajectory("", facts, tuple(steps))


def write_synthetic_episode(writer: TrajectoryWriter, episode: Trajectory) -> None:
    """Record an episode step by step."""
    id = writer.begin(episode.facts)
    for step in episode.steps:
        writer.add([(id, step)])
