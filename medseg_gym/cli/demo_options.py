"""Options of `medseg demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.option_groups import CaseOptions
from medseg_gym.options import specs


@dataclass(frozen=True, kw_only=True)
class DemoOptions(CaseOptions):
    """Options of `medseg demo`."""

    topic: ClassVar[str] = "Demo"

    backbones: tuple[str, ...] = specs(
        "medseg_gym.backbones:split", "pocket", "lite_medsam", "ellipse"
    )
    """Names, comma between; the images are of the first."""

    num_envs: int = 8
    """Slots of the vector environment."""
