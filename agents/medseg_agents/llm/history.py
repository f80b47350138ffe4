"""The part of a conversation that a model is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.envs.views.messages import Message, text_message
from medseg_gym.errors import PolicyError


def read_history(history: str | int) -> str | int:
    """Check the option `history`.

    Args:
        history: "all": the conversation with every image. A number k from 1: all words, but only
            the newest k images. "none": the task, the newest image and its turn, nothing
            before.

    Returns:
        "all", "none" or an int.

    Raises:
        PolicyError: Anything else.
    """
    if isinstance(history, str) and re.fullmatch(r"\d{1,9}", history):
        history = int(history)
    if history in ("all", "none") or (isinstance(history, int) and history >= 1):
        return history
    raise PolicyError(f"history must be all, none or a number from 1, got {history!r}")


@dataclass
class Dialogue:
    """One conversation: turns of the user and completions of the model.

    Args:
        texts: Of the user's turns.
        images: Of the user's turns, of whatever type the policy keeps.
        completions: Of the model; one fewer than `texts` while it is the model's turn.
        tokens: Of each completion as it was drawn, without the one that ends it; empty where the
            model's tokens are not known.
    """

    texts: list[str] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)

    def shown(
        self, system: Sequence[Message], history: str | int
    ) -> tuple[list[Message], list[Any]]:
        """Return what the model is shown now.

        Args:
            system: Messages that come first.
            history: As `read_history` returns it.

        Returns:
            Messages (see `medseg_gym.envs.views.messages.Message`) and the images of their image
            parts, in order.
        """
        if history == "none":
            words = [self.texts[0], *([self.texts[-1]] if len(self.texts) > 1 else [])]
            return [*system, _user("\n".join(words))], self.images[-1:]
        first = 0 if history == "all" else max(0, len(self.texts) - int(history))
        messages = list(system)
        for number, text in enumerate(self.texts):
            messages.append(_user(text, image=number >= first))
            if number < len(self.texts) - 1:
                messages.append(text_message("assistant", self.completions[number]))
        return messages, self.images[first:]


def _user(text: str, image: bool = True) -> Message:
    images = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*images, {"type": "text", "text": text}]}
