"""Cases as the tasks of `verifiers`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import verifiers.v1 as vf
from pydantic import Field

from medseg_agents.chat_episodes import EpisodeWorker, worker_of
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, ChatKind, chat_kind

PLUGIN = "medseg-chat"
"""Name under which `verifiers` finds taskset, environment and harness."""


class MedSegTasksetConfig(vf.TasksetConfig):
    """Cases that are played, and the options of the environment that plays them."""

    id: str = PLUGIN

    env_id: str = IMAGE_CHAT.env_id
    """Chat environment: MedSegChat-v0, or MedSegVolumeChat-v0 for volumes."""

    cases: str = "samples"
    """Spec of the cases."""

    split: str = "auto"
    """train, val, test or all; auto as everywhere: test, or all where the data name no splits."""

    backbone: str = "pocket"
    """Segmenter; "http:URL" and "ray:NAME" share one between processes."""

    checkpoint: str | None = None
    """Weight file of the segmenter; None takes its own."""

    device: str = "auto"
    """Device of the segmenter."""

    image_size: int = 512
    """Side of the images that the model is shown, in pixels."""

    max_steps: int = Field(5, ge=1)
    """Most answers in a conversation."""

    reward: str = "dice_gain"
    """Reward of the environment, whose sum is the reward of a rollout."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Further options of the environment (`texts`, `coordinates`, `tools`, ...), and `max_batch`
    and `max_delay_ms` of `EpisodeWorker`.
    """


class MedSegTaskData(vf.TaskData):
    """A case, by its key: neither image nor truth is in it."""

    case: str
    """Key of the case."""

    tools: list[dict[str, Any]] = Field(default_factory=list)
    """The calls as OpenAI's function schemas."""


class MedSegTask(vf.Task[MedSegTaskData]):
    """One case. Its rewards are recorded by the environment, which knows the episode."""

    @property
    def key(self) -> str:
        """Key of the case, which stays the same whatever else a run changes."""
        case: str = self.data.case
        return case


class MedSegTaskset(vf.Taskset[MedSegTask, MedSegTasksetConfig]):
    """The cases of a spec, in order.

    Args:
        config: See `MedSegTasksetConfig`.

    Raises:
        MedSegError: An option that cannot be used.
        CaseError: Cases that cannot be read.
    """

    def __init__(self, config: MedSegTasksetConfig) -> None:
        super().__init__(config)
        self.kind: ChatKind = chat_kind(config.env_id)
        self._arguments: dict[str, Any] = {
            **{
                name: getattr(config, name)
                for name in ("cases", "split", "backbone", "checkpoint", "device", "image_size")
            },
            "max_steps": config.max_steps,
            "reward": config.reward,
            **config.options,
        }
        of_worker = ("max_batch", "max_delay_ms")
        self.options: ChatOptions = self.kind.options.from_arguments(
            {name: value for name, value in self._arguments.items() if name not in of_worker}
        )

    @cached_property
    def worker(self) -> EpisodeWorker:
        """Worker that plays the episodes, the same for all tasksets of these options."""
        return worker_of({**self._arguments, "env_id": self.kind.env_id})

    def load(self) -> Iterator[MedSegTask]:
        """Yield a task for every case; no image is read."""
        view = self.kind.view(self.options)
        system = "".join(
            part["text"] for message in view.system_messages for part in message["content"]
        )
        for key in self.kind.load(self.options.cases, self.options.split).keys:
            data = MedSegTaskData(
                name=key, case=key, system_prompt=system or None, tools=view.tool_schemas
            )
            yield MedSegTask(data, self.config.task)
