"""PolicySpec: a policy that is still to be built, and the view that it plays through.

So that one table can hold policies that see arrays of different sizes, and policies that chat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.errors import PolicyError, ToolError
from medseg_gym.option_groups import AUTO_TOOLS
from medseg_gym.policy import Policy, make_envs

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

    def make_envs(self, num_envs: int, tools: Sequence[str], **options: Any) -> CoreVectorEnv:
        """Make the environment that the policy plays, see `medseg_gym.policy.make_envs`.

        Args:
            num_envs: Slots.
            tools: That the policy may use, or "auto": those that it was made for, else all that
                the backbone can answer.
            **options: Further arguments of the environment.

        Raises:
            PolicyError: It was made for other tools than are given, or than the backbone can
                answer.
            ToolError: The backbone cannot answer the tools that are given.
        """
        own = self.view.get("tools")
        if own is None:
            return make_envs(num_envs, self.env_id, tools=tools, **options, **self.view)
        if tools != AUTO_TOOLS and {*tools} != {*own}:
            raise PolicyError(
                f"policy {self.name!r} was made for the tools {', '.join(own)}, and is to use "
                f"{', '.join(tools)}; leave --tools out, or give another policy"
            )
        try:
            return make_envs(num_envs, self.env_id, **options, **self.view)
        except ToolError as error:
            raise PolicyError(
                f"policy {self.name!r} was made for the tools {', '.join(own)}: {error}; or give "
                "another policy, or a backbone that can answer them"
            ) from error

    def __post_init__(self) -> None:
        # A checkpoint may be somebody else's: where images and keys go is not for it to say.
        foreign = sorted(set(self.view) & set(_NOT_OF_A_VIEW))
        if foreign:
            raise PolicyError(
                f"{self.name}: its checkpoint's view sets {', '.join(foreign)}, which is not for a "
                "checkpoint to decide; remove that from view.json or medseg_view.json"
            )
