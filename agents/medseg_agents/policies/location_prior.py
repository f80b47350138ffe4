"""A baseline that knows where things usually are: one fixed box per target, then stop.

A model that was trained on images of one kind can do as well without looking. What it is worth
beyond this box is what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from medseg_agents.policies.options import require_argument
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.policies.volume_location_prior import volume_location_prior
from medseg_gym.annotators.box import tight_box
from medseg_gym.annotators.scripted import ScriptedPolicy
from medseg_gym.cases import load_cases
from medseg_gym.policy import Policy
from medseg_gym.prompts import AddBox, ArrayCodec, Prompt, Stop
from medseg_gym.prompts.volumes import VolumeCodec
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec

CASES = 2400
"""Training cases that the boxes come from."""


class LocationPrior(ScriptedPolicy):
    """The box of the target's name, then stop; stops at once for names that it does not know.

    Args:
        codec: Of the array view that it plays through.
        boxes: By number of the target in the view; None where there is none.
    """

    name = "location-prior"
    needs = ("box", "stop")

    def __init__(self, codec: ArrayCodec, boxes: Sequence[AddBox | None]) -> None:
        super().__init__(codec)
        self.boxes = boxes
        self.settings = {"boxes": [None if box is None else astuple(box) for box in boxes]}
        self._targets: np.ndarray = np.zeros(0, np.int64)

    def act(self, observations: Any) -> np.ndarray:
        """Choose actions, (n, 5) int64."""
        self._targets = observations["target"]
        return super().act(observations)

    def choose(self, slot: int) -> Prompt:
        """Box, then stop."""
        box = self.boxes[int(self._targets[slot])]
        return Stop() if self.turns[slot] or box is None else box


@takes_spec
def policy_spec(spec: Spec) -> PolicySpec:
    """Read "location-prior:CASES": boxes of the first `CASES` training cases of that case spec.

    In `MedSegVolume-v0` it is a spec of volumes, see `volume_location_prior`.

    Raises:
        PolicyError: No case spec is given.
    """
    require_argument(spec)
    return location_prior(spec.rest, CASES)


def location_prior(cases: str, count: int) -> PolicySpec:
    """Return the policy spec, its boxes being the medians over the first training cases.

    Args:
        cases: Case spec.
        count: How many; fewer where the split has fewer.
    """

    def build(envs: Any) -> Policy:
        if isinstance(envs.codec, VolumeCodec):
            return volume_location_prior(envs, cases)
        source = load_cases(cases, "train")
        sides: dict[str, list[tuple[float, ...]]] = {}
        for index in range(min(count, len(source))):
            case = source[index]
            box = tight_box(case.mask)
            if box is not None:
                sides.setdefault(case.target, []).append((box.x1, box.y1, box.x2, box.y2))
        boxes: list[AddBox | None] = [None]  # number 0 is any target beside the vocabulary
        for target in envs.source.targets:
            seen = sides.get(target)
            middle = np.median(seen, axis=0).tolist() if seen else None
            boxes.append(AddBox(*middle) if middle else None)
        return LocationPrior(envs.codec, boxes)

    return PolicySpec(f"location-prior:{cases}", build)
