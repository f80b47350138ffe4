"""Prompts of conversations as vLLM takes them: tokens, and images by their hashes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medseg_agents.llm.engine import Conversation
from medseg_agents.llm.prompt_tokens import PromptTokens
from medseg_gym.envs.views.messages import Message

_KEPT_BYTES = 2**30


@dataclass(frozen=True)
class Prompt:
    """Input of a model in one turn.

    Args:
        tokens: (L,) int32, one place holder an image.
        images: In the order of their place holders.
    """

    tokens: np.ndarray
    images: list[Image.Image]


def prompts_of(
    prompt_tokens: PromptTokens,
    conversations: Sequence[Conversation],
    system: Sequence[Message],
    history: str | int,
    image_token: int,
) -> list[Prompt]:
    """Make the prompts of conversations whose newest turn is the user's.

    Args:
        prompt_tokens: Of the model's processor.
        conversations: Of which a completion is wanted.
        system: Messages that every conversation begins with.
        history: See `history.read_history`.
        image_token: Place holder of images.
    """
    prompts = []
    for one in conversations:
        messages, images = one.dialogue.shown(system, history)
        ids = np.asarray(prompt_tokens.ids(messages, one.dialogue.tokens), np.int32)
        prompts.append(Prompt(one_place_holder(ids, image_token), images))
    return prompts


def one_place_holder(tokens: np.ndarray, image_token: int) -> np.ndarray:
    """Leave one place holder of each image, where there may be one for each of its tokens.

    vLLM repeats place holders itself, and where they are repeated already it takes the second one
    for the next image. Between two images there is always another token.

    Args:
        tokens: (L,) int.
        image_token: Place holder of images.
    """
    again = np.zeros(len(tokens), bool)
    again[1:] = (tokens[1:] == image_token) & (tokens[:-1] == image_token)
    return tokens[~again]


class SentImages:
    """The images that a worker has; each is sent once while there is room for it."""

    def __init__(self, room: int = _KEPT_BYTES) -> None:
        self.room = room
        self._bytes: OrderedDict[str, int] = OrderedDict()

    def deal(
        self, prompts: Sequence[Prompt]
    ) -> tuple[list[list[str]], dict[str, np.ndarray], list[str]]:
        """Return what a message about some prompts says of images.

        Args:
            prompts: Of the message.

        Returns:
            Keys of the images of each prompt; pixels of those that the worker lacks, by key; keys
            of those that it may forget before it takes them.
        """
        keys: list[list[str]] = []
        new: dict[str, np.ndarray] = {}
        for prompt in prompts:
            keys.append([])
            for image in prompt.images:
                pixels = np.asarray(image, np.uint8)
                key = hashlib.blake2b(pixels.tobytes(), digest_size=16)
                key.update(repr(pixels.shape).encode())
                name = key.hexdigest()
                keys[-1].append(name)
                if name not in self._bytes:
                    new[name] = pixels
                self._bytes[name] = pixels.nbytes
                self._bytes.move_to_end(name)
        shown = {name for row in keys for name in row}
        forgotten = []
        total = sum(self._bytes.values())
        for name in list(self._bytes):
            if total <= self.room or name in shown:  # the oldest come first
                break
            total -= self._bytes.pop(name)
            forgotten.append(name)
        return keys, new, forgotten
