"""The arguments of the chat environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.views.chat_texts import ChatTexts
from medseg_gym.prompts import Thinking


@dataclass(frozen=True, kw_only=True)
class ChatOptions(EnvOptions):
    """Arguments of `gym.make("MedSegChat-v0", ...)` and `gym.make_vec("MedSegChat-v0", ...)`.

    Those of `EnvOptions` but `bins` and `targets`, which belong to arrays; `max_steps` is the limit
    of turns, `tools` also decides what the system prompt tells of. And:
    """

    noun: ClassVar[str] = "MedSegChat"
    refused: ClassVar[Mapping[str, str]] = {
        "bins": "tool calls are on a grid of 1000 cells, or as coordinates= says",
        "targets": "the target is told in words",
    }

    of_view: ClassVar[tuple[str, ...]] = (
        *("image_size", "texts", "overlay", "overlay_strength", "thinking", "coordinates"),
        "tools",
    )
    """Arguments that belong to the view alone."""

    image_size: int = 512
    """Side P of the square image that the model is shown, in pixels."""

    texts: str | ChatTexts | Mapping[str, Any] = field(default="full")
    """Words: "full", "terse" (for tiny models), a `ChatTexts`, or its arguments as a mapping."""

    overlay: Literal["fill", "outline", "none"] = "fill"
    """Drawing of the mask: "fill", its "outline", or "none" (the model never sees it)."""

    overlay_strength: float = 0.5
    """1 paints opaque, 0.5 half transparent, 0 nothing."""

    thinking: Thinking = False
    """Thoughts (`<think>...</think>` and their kin) are read past. True also invites them in the
    system prompt; "refuse" makes an answer with a thought unreadable, so that rewards for the form
    of answers give nothing for it.
    """

    coordinates: str = "grid1000"
    """Notation of places, which system prompt, tool schemas, conversations and exports all
    follow: "grid1000", whole numbers 0..999 of width and height; "fraction", numbers 0..1; "pixel",
    pixels of the image that it is shown, 0..P-1.
    """
