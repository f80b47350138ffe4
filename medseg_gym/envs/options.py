"""Every argument of the environments, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medseg_gym.cases import Case, CaseSource
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import TOOL_CALL_BINS, TOOLS

if TYPE_CHECKING:
    from medseg_gym.backbones import Backbone
    from medseg_gym.episodes.rewards import Reward


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """Arguments of `gym.make("MedSeg-v0", ...)` and `gym.make_vec("MedSeg-v0", ...)`."""

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

    prompt_memory: Literal["all", "newest"] = "all"
    """"all" prompts in force go to the decoder, or the "newest" alone."""

    mask_input: bool = True
    """Feed the previous logits back where the backbone takes them."""

    multimask: Literal["auto", "always", "never"] = "auto"
    """"auto" (three masks for a single click, else one), "always" or "never"."""

    text_prompt: bool = False
    """Also tell a backbone that takes text (see its `prompt_kinds`) the target."""

    image_size: int = 128
    """Side S of the observed square, in pixels."""

    bins: int = TOOL_CALL_BINS
    """Cells per axis of the action's grid."""

    tools: Sequence[str] = TOOLS
    """Subset of `TOOLS` that the agent may use."""

    targets: Sequence[str] | None = None
    """Vocabulary of target texts; None takes the case source's own."""

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> EnvOptions:
        """Build from keyword arguments.

        Raises:
            MedSegError: An argument that does not exist.
        """
        known = [f.name for f in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise MedSegError(
                f"MedSeg environments take no argument {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(known)}"
            )
        return cls(**options)
