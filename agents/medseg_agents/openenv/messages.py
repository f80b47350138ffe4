"""Messages between client and server."""

from __future__ import annotations

from typing import Any

from openenv.core.env_server import Action, Observation, State
from pydantic import Field

from medseg_agents.llm.openai.answers import AssistantTurn, read_completion


class MedSegAction(Action):
    """An answer of the model, as it stands in a chat completion."""

    answer: str = ""
    """Text of the answer; calls may stand in it."""

    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    """Calls that a server took out of the text, as OpenAI's API writes them."""

    finish_reason: str | None = None
    """Of the completion; "length" tells the model that its answer was cut off."""

    def turn(self, number: int) -> AssistantTurn:
        """Return the answer as the environment and later requests take it.

        Args:
            number: Of the answer in its conversation, from 0.
        """
        message = {"content": self.answer, "tool_calls": self.tool_calls}
        choice = {"message": message, "finish_reason": self.finish_reason}
        return read_completion({"choices": [choice]}, number, None)


class MedSegObservation(Observation):
    """A turn of the user.

    `reward` and `done` are OpenEnv's; `metadata` says what came of the answer (`tool`, `valid`,
    `error`, `repairs`). All but the reward may be shown to a policy; Dice is in the state.
    """

    system: str = ""
    """System prompt; in the first observation of an episode alone."""

    tools: list[dict[str, Any]] = Field(default_factory=list)
    """The calls as OpenAI's function schemas; in the first observation of an episode alone."""

    text: str = ""
    """Words of the user."""

    images: list[str] = Field(default_factory=list)
    """Beside it, in order, as data URLs with PNG in base64; none when the episode is over."""


class MedSegState(State):
    """Standing of the episode; not for the policy."""

    case: str | None = None
    """Key of the case; None before the first reset."""

    dice: float = 0.0
    """Dice of the mask now."""

    start_dice: float = 0.0
    """Dice before the first answer."""

    episode_return: float = 0.0
    """Sum of rewards so far."""

    valid: int = 0
    """Answers that did what they asked for."""

    steps_left: int = 0
    """Answers that the episode has left."""

    stopped: bool = False
    """True if the model ended the episode."""

    done: bool = False
    """True if the episode is over."""
