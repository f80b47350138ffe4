"""The tokens of an episode, as far as they follow from settings."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_agents.grpo.plan.shape import ModelShape


@dataclass(frozen=True)
class Conversation:
    """Tokens of an episode that uses all its turns.

    Args:
        prompt: Of the shared beginning: system message, task and first image.
        turn: Of each later turn before its completion: answer of the environment and image.
        completion: Of a completion, at most.
        turns: Completions.
        image: Of an image; each turn shows one.
    """

    prompt: int
    turn: int
    completion: int
    turns: int
    image: int

    @property
    def tokens(self) -> int:
        """Tokens of the row that is learned from."""
        return self.prompt + (self.turns - 1) * self.turn + self.turns * self.completion


def conversation(
    shape: ModelShape,
    *,
    image_size: int,
    turns: int,
    completion: int,
    first_text: int,
    turn_text: int,
) -> Conversation:
    """Count the tokens of an episode.

    Args:
        shape: Of the model.
        image_size: Side of its images in pixels.
        turns: Calls of an episode.
        completion: Tokens of a completion, at most.
        first_text: Text tokens before the first completion.
        turn_text: Text tokens of a later turn, without its completion.
    """
    image = shape.image_tokens(image_size)
    return Conversation(first_text + image, turn_text + image, completion, turns, image)
