"""How much of a conversation a model is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.envs.views.chat import Message, text_message
from medseg_gym.errors import PolicyError


def read_history(history: str | int) -> str | int:
    """Check the option `history`.

    Args:
        history: "all": the conversation with every picture. A number k from 1: all words, but only
            the newest k pictures. "none": the task, the newest picture and its turn, nothing
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
    """One conversation: what the user showed and what the model said.

    Args:
        texts: Of the user's turns.
        pictures: Of the user's turns, of whatever type the policy keeps.
        answers: Of the model; one fewer than `texts` while it is the model's turn.
    """

    texts: list[str] = field(default_factory=list)
    pictures: list[Any] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def shown(
        self, system: Sequence[Message], history: str | int
    ) -> tuple[list[Message], list[Any]]:
        """What the model is shown now.

        Args:
            system: What comes first.
            history: As `read_history` returns it.

        Returns:
            Messages (see `medseg_gym.envs.views.chat.Message`) and the pictures of their image
            parts, in order.
        """
        if history == "none":
            words = [self.texts[0], *([self.texts[-1]] if len(self.texts) > 1 else [])]
            return [*system, _user("\n".join(words))], self.pictures[-1:]
        first = 0 if history == "all" else max(0, len(self.texts) - int(history))
        messages = list(system)
        for number, text in enumerate(self.texts):
            messages.append(_user(text, picture=number >= first))
            if number < len(self.texts) - 1:
                messages.append(text_message("assistant", self.answers[number]))
        return messages, self.pictures[first:]


def _user(text: str, picture: bool = True) -> Message:
    image = [{"type": "image"}] if picture else []
    return {"role": "user", "content": [*image, {"type": "text", "text": text}]}
