"""PolicySpec: a policy that is still to be built, and the view that it plays through.

So that one table can hold policies that see arrays of different sizes, and policies that chat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy

_NOT_OF_A_VIEW = (
    *("cases", "split", "backbone", "backbone_options", "checkpoint", "device", "reward"),
    *("render_mode", "num_envs", "autoreset_mode"),
)


VOLUME_ENVS = ("MedSegVolume-v0", "MedSegVolumeChat-v0")
"""Environments whose episodes are whole volumes."""


@dataclass(frozen=True)
class PolicySpec:
    """A policy that is still to be built, and the view that it plays through.

    Args:
        name: As it was given.
        build: Makes the policy for a vector environment of that view.
        env_id: Environment of the view.
        view: Arguments of that environment which belong to the view alone (image_size, bins,
            tools, targets, ...), as the policy's checkpoint says; never cases or a backbone.
    """

    name: str
    build: Callable[[Any], Policy]
    env_id: str = "MedSeg-v0"
    view: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plays_volumes(self) -> bool:
        """Return whether an episode of it is a whole volume, and not an image or a slice."""
        return self.env_id in VOLUME_ENVS

    def __post_init__(self) -> None:
        # A checkpoint may be somebody else's: where images and keys go is not for it to say.
        foreign = sorted(set(self.view) & set(_NOT_OF_A_VIEW))
        if foreign:
            raise PolicyError(
                f"{self.name}: its checkpoint's view sets {', '.join(foreign)}, which is not for a "
                "checkpoint to decide; remove that from view.json or medseg_view.json"
            )
