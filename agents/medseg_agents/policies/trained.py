"""Parts that policies of trained networks share, whatever trained them, without SB3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NETWORK_WEIGHTS, NETWORK_CONFIG = "network.safetensors", "network.json"
"""Files of a checkpoint of images, see `policies.network`."""

SB3_WEIGHTS, SB3_CONFIG = "sb3_policy.safetensors", "sb3_policy.json"
"""Files of a checkpoint of volumes, which `medseg_agents.arrays.sb3.save_policy` writes."""


class TrainedPolicy:
    """A network that plays; each slot draws from its own generator.

    Args:
        name: Shown in tables.
        sampled: Draw actions instead of taking the likeliest.
        digest: Of the weights, so that records of another checkpoint are not mistaken for its own.
    """

    sees_truth = False

    def __init__(self, name: str, sampled: bool = False, digest: str = "") -> None:
        self.name, self.sampled = name, sampled
        self.settings = {"weights": digest}
        self._generators: dict[int, np.random.Generator] = {}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        self._generators.update(zip(slots, generators, strict=True))
