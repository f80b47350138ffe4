"""The location prior of volumes: the usual box on the usual slice of a target, then propagation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg_gym.annotators.box import tight_box
from medseg_gym.annotators.volume_baselines import FixedBox
from medseg_gym.cases import VolumeCase
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import VolumeCodec

Place = tuple[float, AddBox]
"""Position along the volume, 0..1, and the box there."""

VOLUMES = 48
"""Training volumes that the places come from."""


class VolumeLocationPrior(FixedBox):
    """The box of the target's name on its middle slice; stops at once for names it does not know.

    Args:
        codec: Of the view that it plays through.
        places: By number of the target in the view; None where there is none.
    """

    name = "location-prior"

    def __init__(self, codec: VolumeCodec, places: Sequence[Place | None]) -> None:
        super().__init__(codec)
        self.places = places

    def place(self, observation: Mapping[str, Any]) -> Place | None:
        """That of the target."""
        return self.places[int(observation["target"])]


def volume_location_prior(envs: Any, cases: str, count: int = VOLUMES) -> VolumeLocationPrior:
    """Make the policy, its places being the medians over the first training volumes.

    Args:
        envs: That it is to play in.
        cases: Spec of volumes.
        count: How many; fewer where the split has fewer.
    """
    source = load_volumes(cases, "train")
    seen: dict[str, list[tuple[float, ...]]] = {}
    for index in range(min(count, len(source))):
        case = source[index]
        if (measured := _measure(case)) is not None:
            seen.setdefault(case.target, []).append(measured)
    places: list[Place | None] = [None]  # number 0 is any target beside the vocabulary
    for target in envs.source.targets:
        if target in seen:
            where, *sides = np.median(seen[target], axis=0).tolist()
            places.append((where, AddBox(*sides)))
        else:
            places.append(None)
    return VolumeLocationPrior(envs.codec, places)


def _measure(case: VolumeCase) -> tuple[float, ...] | None:
    """Middle of the target along the volume, 0..1, and the sides of its box there."""
    shown = np.flatnonzero(case.mask.any(axis=(1, 2)))
    if not len(shown):
        return None
    middle = int(shown[len(shown) // 2])
    box = tight_box(case.mask[middle])
    assert box is not None  # the slice has some of the target
    return (middle + 0.5) / case.depth, box.x1, box.y1, box.x2, box.y2
