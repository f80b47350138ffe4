"""DecodeOptions: how prompts become decoder rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_gym.errors import EpisodeError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(Options):
    """Rules that make decoder rows of prompts; one rule for training and inference."""

    topic: ClassVar[str] = "Segmenter"

    prompt_memory: Literal["all", "newest"] = "all"
    """"all" gives the decoder every prompt in force. "newest" gives it the newest one alone once
    there are logits, which is what MedSAM-Agent does.
    """

    mask_input: bool = True
    """Feed the previous logits back, where the backbone takes them."""

    multimask: Literal["auto", "always", "never"] = "auto"
    """"auto" asks for three masks and keeps the best predicted IoU when the row is exactly one
    click, as SAM's authors advise; "always" and "never" do so in every row.
    """

    text_prompt: bool = False
    """Add the case's target text to every row, for backbones that take text (see their
    `prompt_kinds`).
    """

    text_start: bool = False
    """Begin every episode with the mask that such a backbone makes of the target's text alone; a
    case that brings an initial mask begins with that one.
    """

    def __post_init__(self) -> None:
        for name, choices in (
            ("prompt_memory", ("all", "newest")),
            ("multimask", ("auto", "always", "never")),
        ):
            if getattr(self, name) not in choices:
                raise EpisodeError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
