"""`MedSegTool`: one call of a chat environment as a tool of verl."""

from __future__ import annotations

import weakref
from typing import Any
from uuid import uuid4

from medseg_agents.chat_episodes import worker_of
from medseg_agents.verl.base import BaseTool, ToolResponse, rollout_trace_op, tool_schema_of
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import write_call

FIELD = "medseg"
"""Entry of verl's `extra_fields` with a rollout's standing, which `compute_score` reads."""


class MedSegTool(BaseTool):
    """A tool call of a chat environment; a verl configuration names the class once for each.

    verl makes an instance before every single call and releases it after it. So an episode is known
    by its rollout's `agent_data.request_id`, and ends with the rollout. Loops that create with an
    id of their own and pass no `agent_data` are known by that id; their episode ends when every
    tool has released it.

    Args:
        config: `tool`: name of the call (`add_bbox`, `add_point`, `undo_action`, `clear_action`,
            `stop_action`, of volumes `propagate_action` and `look_action`, too); `options`:
            arguments of `EpisodeWorker`, the same for all tools; `type` is verl's.
        tool_schema: None takes the suite's own.

    Raises:
        PolicyError: No such call.
        MedSegError: Options that cannot be used.
    """

    def __init__(self, config: dict[str, Any], tool_schema: Any = None) -> None:
        options = dict(config.get("options") or {})
        kind = chat_kind(options.get("env_id", IMAGE_CHAT.env_id))
        of_worker = ("max_batch", "max_delay_ms", "env_id")
        chat = kind.options.from_arguments({k: options[k] for k in options if k not in of_worker})
        schemas = {s["function"]["name"]: s for s in kind.view(chat).tool_schemas}
        if config.get("tool") not in schemas:
            raise PolicyError(
                f"MedSegTool: config.tool must be one of {', '.join(schemas)}, "
                f"got {config.get('tool')!r}"
            )
        self._own_schema = schemas[config["tool"]]
        super().__init__(config, tool_schema)
        self.call = config["tool"]
        self.worker = worker_of(options)
        self._cases: dict[str, str | None] = {}  # by instance

    def get_openai_tool_schema(self) -> Any:
        """Return the call as a function schema."""
        return tool_schema_of(self._own_schema)

    async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, Any]:
        """Make an instance.

        Args:
            instance_id: Chosen by verl, or None.
            **kwargs: `case`, alone or in `create_kwargs`, as the row's `tools_kwargs` says.
        """
        instance_id = instance_id or str(uuid4())
        self._cases[instance_id] = (kwargs.get("create_kwargs") or kwargs).get("case")
        self.worker.hold(instance_id)
        return instance_id, ToolResponse()

    @rollout_trace_op
    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[Any, float, dict[str, Any]]:
        """Take one step of the rollout's episode.

        Args:
            instance_id: From `create`.
            parameters: Arguments as the model gave them; wrong ones cost a step.
            **kwargs: `agent_data`, of verl's agent loop.

        Returns:
            The next images and text, the step's reward, and the episode's standing (see `Turn`).

        Raises:
            PolicyError: The row names no case.
            MedSegError: The segmenter failed. verl shows it to the model and goes on;
                `compute_score` refuses the rollout.
        """
        agent_data = kwargs.get("agent_data")
        fields = {} if agent_data is None else agent_data.extra_fields
        failure = (fields.get(FIELD) or {}).get("failure")
        if failure:
            raise PolicyError(f"an earlier call of this rollout failed: {failure}")
        episode = instance_id if agent_data is None else str(agent_data.request_id)
        answer = write_call(self.call, parameters)
        try:
            case = self._cases.get(instance_id)
            if case is None:
                raise PolicyError(
                    "this rollout names no case: the row needs extra_info.tools_kwargs."
                    f"{self.call}.create_kwargs.case, as write_rows writes it"
                )
            if agent_data is not None and FIELD not in fields:
                weakref.finalize(agent_data, self.worker.drop, episode)
            turn = await self.worker.step(episode, case, answer)
        except Exception as error:
            fields[FIELD] = {"failure": f"{type(error).__name__}: {error}"}
            raise
        fields[FIELD] = turn.standing
        shown = {"text": turn.text} | ({"image": list(turn.images)} if turn.images else {})
        return ToolResponse(**shown), turn.reward, turn.standing

    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        """Return the sum of rewards so far, for loops that name instances by episode."""
        return float(self.worker.standing(instance_id).get("episode_return", 0.0))

    async def release(self, instance_id: str, **kwargs: Any) -> None:
        """Let an instance go."""
        if instance_id in self._cases:
            del self._cases[instance_id]
            self.worker.let_go(instance_id)  # with `agent_data` there is no episode of this name
