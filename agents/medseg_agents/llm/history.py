"""The part of a conversation that a model is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.envs.views.messages import Message, text_message, user_message
from medseg_gym.errors import PolicyError


def read_history(history: str | int) -> str | int:
    """Check the option `history`.

    Args:
        history: "all": the conversation with every image. A number k from 1: all words, but only
            the images of the newest k turns. "none": the task, the newest turn and its images,
            nothing before.

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
        images: Of each of the user's turns, in the order in which they are shown, of whatever type
            the policy keeps.
        completions: Of the model; one fewer than `texts` while it is the model's turn.
        tokens: Of each completion as it was drawn, without the one that ends it; empty where the
            model's tokens are not known.
    """

    texts: list[str] = field(default_factory=list)
    images: list[tuple[Any, ...]] = field(default_factory=list)
    completions: list[str] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)

    def all_images(self) -> list[Any]:
        """Return the images of all turns, one after another."""
        return [image for images in self.images for image in images]

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
            newest = list(self.images[-1])
            return [*system, user_message("\n".join(words), len(newest))], newest
        first = 0 if history == "all" else max(0, len(self.texts) - int(history))
        messages = list(system)
        for number, text in enumerate(self.texts):
            count = len(self.images[number]) if number >= first else 0
            messages.append(user_message(text, count))
            if number < len(self.texts) - 1:
                messages.append(text_message("assistant", self.completions[number]))
        return messages, [image for images in self.images[first:] for image in images]
