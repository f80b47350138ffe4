"""Every argument of the environments, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from medseg_gym.cases import Case, CaseSource
from medseg_gym.episodes.decode_options import DecodeOptions
from medseg_gym.errors import MedSegError, nearest
from medseg_gym.prompts import TOOL_CALL_BINS, TOOLS

if TYPE_CHECKING:
    from medseg_gym.backbones import Backbone
    from medseg_gym.episodes.rewards import Reward


E = TypeVar("E", bound="EnvOptions")


@dataclass(frozen=True, kw_only=True)
class EnvOptions(DecodeOptions):
    """Arguments of `gym.make("MedSeg-v0", ...)` and `gym.make_vec("MedSeg-v0", ...)`.

    Attributes:
        noun: Name of the environments in messages.
        refused: Inherited arguments that they do not take, each with the reason.
    """

    topic: ClassVar[str] = "Environment"
    noun: ClassVar[str] = "MedSeg"
    refused: ClassVar[Mapping[str, str]] = {}

    cases: str | CaseSource | Sequence[Case] = "samples"
    """Cases: a spec for `load_cases`, a CaseSource or a sequence of Cases."""

    split: str = "train"
    """"train", "val" or "test"; for a spec only."""

    backbone: str | Backbone = "pocket"
    """Segmenter: a name for `backbones.load`, or a Backbone."""

    checkpoint: str | Path | None = None
    """Weight file of a named backbone; None uses its official file where it is found."""

    device: str = "auto"
    """"auto" is CUDA where there is one."""

    backbone_options: Mapping[str, Any] | None = None
    """More arguments of a named backbone, see `backbones.load`."""

    reward: str | Reward = "dice_gain"
    """Name for `rewards.make`, or a Reward."""

    max_steps: int = 5
    """Actions per episode; running out of them terminates it."""

    image_size: int = 128
    """Side S of the observed square, in pixels."""

    bins: int = TOOL_CALL_BINS
    """Cells per axis of the action's grid."""

    tools: Sequence[str] = TOOLS
    """Subset of `TOOLS` that the agent may use; "auto" takes those that the backbone can answer."""

    targets: Sequence[str] | None = None
    """Vocabulary of target texts; None takes the case source's own."""

    @classmethod
    def from_arguments(cls: type[E], options: Mapping[str, Any]) -> E:
        """Build from keyword arguments, which may be objects.

        Raises:
            MedSegError: An argument that does not exist (with the nearest), or that belongs to
                another view.
        """
        for name, reason in cls.refused.items():
            if name in options:
                raise MedSegError(f"{cls.noun} environments take no argument {name!r}: {reason}")
        known = [f.name for f in fields(cls) if f.name not in cls.refused]
        for name in options:
            if name not in known:
                raise MedSegError(
                    f"{cls.noun} environments take no argument {name!r}{nearest(name, known)}; "
                    f"known: {', '.join(known)}"
                )
        return cls(**options)
