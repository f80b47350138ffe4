"""GenerationEngine: the protocol of what completes conversations, and the data it works on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from medseg_agents.llm.history import Dialogue
from medseg_gym.envs.views.messages import Message
from medseg_gym.errors import PolicyError

if TYPE_CHECKING:  # they import torch, which an engine elsewhere does not need
    from medseg_agents.llm.engine_options import ModelOptions
    from medseg_agents.llm.processed_images import ProcessedImage
    from medseg_agents.llm.turn_cache import SlotCache


class EngineError(PolicyError):
    """A generation engine failed, died, was late, or gave no whole completions."""


@dataclass
class Conversation:
    """One conversation.

    Args:
        generator: Its completions are drawn with it.
        dialogue: Turns of the user and completions of the model.
        cache: What the engine keeps of it between turns.
        processed: Its images as the model takes them, as far as they are known.
    """

    generator: np.random.Generator
    dialogue: Dialogue = field(default_factory=Dialogue)
    cache: SlotCache | None = None
    processed: list[ProcessedImage] = field(default_factory=list)

    def fork(self, generator: np.random.Generator) -> Conversation:
        """Return a copy that goes on by itself, drawn with a generator of its own.

        Turns, images and what the engine keeps are shared: nothing ever writes into them.
        """
        forked = copy.copy(self)
        forked.generator, forked.dialogue = generator, copy.copy(self.dialogue)
        for one in (forked, forked.dialogue):
            for name, value in list(vars(one).items()):
                if isinstance(value, list):
                    setattr(one, name, list(value))
        return forked

    def show(self, text: str, *images: np.ndarray) -> None:
        """Add the user's turn: its text, and its images in order, each H x W x 3 uint8."""
        self.dialogue.texts.append(text)
        self.dialogue.images.append(tuple(map(Image.fromarray, images)))


@dataclass(frozen=True)
class Completion:
    """Tokens that a model generated in one turn, and those that it read before.

    Args:
        text: Of the completion, without the token that ends it.
        prompt: Tokens that it was shown, (L,) int32, without padding; place holders of images are
            in it.
        tokens: Tokens that it chose, (T,) int32, the one that ends the completion included.
        log_probs: Of each chosen token under the distribution that it was drawn from, (T,) float32;
            empty where completions are not drawn.
        num_images: How many of the newest images were shown.
        cut: It ran into the limit of tokens.
    """

    text: str
    prompt: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    num_images: int
    cut: bool = False


class GenerationEngine(Protocol):
    """Completes many conversations at once; what a `ChatPolicy` plays with.

    Attributes:
        system: Messages that every conversation begins with (`envs.system_messages`).
        options: See `engine_options.ModelOptions`.
    """

    system: list[Message]
    options: ModelOptions

    @property
    def dtype(self) -> str:
        """Type that the model's weights are computed in, for records."""

    def generate(self, conversations: Sequence[Conversation]) -> list[Completion]:
        """Complete the newest user turn of each, and add the completion to its dialogue."""
