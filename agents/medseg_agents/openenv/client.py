"""A client for the server."""

from __future__ import annotations

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from medseg_agents.llm.openai.answers import AssistantTurn
from medseg_agents.llm.openai.messages import next_turn
from medseg_agents.openenv.messages import MedSegAction, MedSegObservation, MedSegState


class MedSegClient(EnvClient[MedSegAction, MedSegObservation, MedSegState]):
    """Plays episodes on a server, one at a time; `.sync()` is for programs without an event loop.

    A connection that breaks takes its episode with it: the next `step` raises, and a rollout that
    ends so has no reward.
    """

    def _step_payload(self, action: MedSegAction) -> dict[str, Any]:
        payload: dict[str, Any] = action.model_dump(exclude_defaults=True)
        return payload

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[MedSegObservation]:
        standing = {"reward": payload.get("reward"), "done": payload.get("done", False)}
        observation = MedSegObservation.model_validate({**payload["observation"], **standing})
        return StepResult(observation, metadata=observation.metadata, **standing)

    def _parse_state(self, payload: dict[str, Any]) -> MedSegState:
        state: MedSegState = MedSegState.model_validate(payload)
        return state


def as_messages(
    observation: MedSegObservation, before: AssistantTurn | None = None
) -> list[dict[str, Any]]:
    """Write an observation as the messages of OpenAI's API that it adds to a conversation.

    Args:
        observation: The first one of an episode brings its system prompt along.
        before: The answer before it (`action.turn(number)`); where it has calls, they are answered.
    """
    system = [{"role": "system", "content": observation.system}] if observation.system else []
    return [*system, *next_turn(observation.text, observation.images, before)]
