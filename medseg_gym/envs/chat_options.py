"""The arguments of the chat environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.views.chat_texts import ChatTexts
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import Thinking

_ARRAY_ONLY = {
    "bins": "tool calls are on a grid of 1000 cells, or as coordinates= says",
    "targets": "the target is told in words",
}


@dataclass(frozen=True, kw_only=True)
class ChatOptions(EnvOptions):
    """Arguments of `gym.make("MedSegChat-v0", ...)` and `gym.make_vec("MedSegChat-v0", ...)`.

    Those of `EnvOptions` but `bins` and `targets`, which belong to arrays; `max_steps` is the limit
    of turns, `tools` also decides what the system prompt tells of. And:
    """

    image_size: int = 512
    """Side P of the square picture that the model is shown, in pixels."""

    texts: str | ChatTexts | Mapping[str, Any] = field(default="full")
    """Words: "full", "terse" (for tiny models), a `ChatTexts`, or its arguments as a mapping."""

    overlay: Literal["fill", "outline", "none"] = "fill"
    """How the mask is shown: "fill", its "outline", or "none" (the model never sees it)."""

    overlay_strength: float = 0.5
    """1 paints opaque, 0.5 half transparent, 0 nothing."""

    thinking: Thinking = False
    """Thoughts (`<think>...</think>` and their kin) are read past. True also invites them in the
    system prompt; "refuse" makes an answer with a thought unreadable, so that rewards for the form
    of answers give nothing for it.
    """

    coordinates: str = "grid1000"
    """How the model writes places, which system prompt, tool schemas, conversations and exports all
    follow: "grid1000", whole numbers 0..999 of width and height; "fraction", numbers 0..1; "pixel",
    pixels of the picture that it is shown, 0..P-1.
    """

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> ChatOptions:
        """Build from keyword arguments.

        Raises:
            MedSegError: An argument that does not exist or belongs to the array view.
        """
        for name, reason in _ARRAY_ONLY.items():
            if name in options:
                raise MedSegError(f"MedSegChat environments take no argument {name!r}: {reason}")
        known = [f.name for f in fields(cls) if f.name not in _ARRAY_ONLY]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise MedSegError(
                f"MedSegChat environments take no argument {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(known)}"
            )
        return cls(**options)
