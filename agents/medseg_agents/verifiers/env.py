"""The environment: plays the user in a conversation, and rewards it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
import verifiers.v1 as vf
from pydantic import Field

from medseg_agents.chat_episodes import Turn
from medseg_agents.llm.openai.answers import AssistantTurn, read_completion
from medseg_agents.llm.openai.messages import data_url, next_turn
from medseg_agents.verifiers.taskset import MedSegTaskset

_METRICS = ("dice", "start_dice", "episode_return", "turns", "stopped", "done")


class MedSegEnvConfig(vf.EnvConfig):
    """The model that plays, the number of its attempts, and the weights of its rewards."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The model. Its program, `MedSegHarness`, runs in this process, so its runtime is an empty
    folder.
    """

    attempts: int = Field(1, ge=1)
    """Conversations on the same case in one episode of `verifiers`, compared with each other at its
    end. Trainers that group episodes by themselves leave it at 1.
    """

    return_weight: float = 1.0
    """Weight of `episode_return`, the sum of the environment's rewards."""

    dice_gain_weight: float = 0.0
    """Weight of `dice_gain`, the final Dice minus that before the first answer."""

    format_weight: float = 0.0
    """Weight of `valid_rate`, the share of answers that did what they asked for."""

    group_weight: float = 0.0
    """Weight of `return_over_mean`, the return minus the mean of the episode's attempts."""


class MedSegEnv(vf.Env[MedSegEnvConfig]):
    """A taskset of cases, played by one model.

    A rollout whose segmenter or whose model's server failed has an error and no reward.

    Args:
        config: See `MedSegEnvConfig`.
    """

    taskset: MedSegTaskset

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """Play all attempts of an episode.

        Raises:
            CaseError: There is no such case.
            MedSegError: The segmenter failed.
        """
        plays = [self._play(task, agents) for _ in range(self.config.attempts)]
        for result in await asyncio.gather(*plays, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def finalize(self, task: vf.Task, episode: vf.Episode) -> None:
        """Compare the attempts of an episode; without effect on one that is alone or failed."""
        returns = [trace.metrics.get("episode_return") for trace in episode.traces]
        if len(returns) < 2 or any(value is None for value in returns):
            return
        mean = sum(returns) / len(returns)
        for trace, value in zip(episode.traces, returns, strict=True):
            trace.record_metric("best_of_group", float(value == max(returns)))
            _record(trace, "return_over_mean", value - mean, self.config.group_weight)

    async def _play(self, task: Any, agents: Any) -> None:
        """Play one conversation and record its rewards."""
        worker, episode, case = self.taskset.worker, uuid4().hex, task.data.case
        try:
            async with agents.agent.interaction(task) as interaction:
                turn = await worker.begin(episode, case)
                before: AssistantTurn | None = None
                while not turn.standing["done"]:
                    images = [data_url(np.asarray(image)) for image in turn.images]
                    segment = await interaction.turn(next_turn(turn.text, images, before))
                    if segment.terminated:  # a limit of the run, or the model's server failed
                        break
                    before = _answer(segment, interaction.trace)
                    turn = await worker.step(episode, case, before.played)
        finally:
            worker.drop(episode)
        if interaction.trace.ok:
            self._reward(interaction.trace, turn)

    def _reward(self, trace: vf.Trace, turn: Turn) -> None:
        standing, config = turn.standing, self.config
        trace.record_metrics({name: float(standing[name]) for name in _METRICS})
        gain = standing["dice"] - standing["start_dice"]
        valid_rate = standing["valid"] / max(standing["turns"], 1)
        _record(trace, "episode_return", standing["episode_return"], config.return_weight)
        _record(trace, "dice_gain", gain, config.dice_gain_weight)
        _record(trace, "valid_rate", valid_rate, config.format_weight)


def _record(trace: vf.Trace, name: str, value: float, weight: float) -> None:
    """Keep a number as a metric, and as a reward where it has a weight."""
    trace.record_metric(name, value)
    if weight:
        trace.record_reward(name, value, weight)


def _answer(segment: vf.Segment, trace: vf.Trace) -> AssistantTurn:
    """Return the model's newest turn, its calls with the ids that stand in the conversation."""
    messages = [m for m in segment.messages if isinstance(m, vf.AssistantMessage)]
    message, calls = messages[-1], messages[-1].tool_calls or []
    listed = [
        {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    choice = {
        "message": {"content": message.content, "tool_calls": listed},
        "finish_reason": trace.calls[-1].finish_reason if trace.calls else None,
    }
    turn = read_completion({"choices": [choice]}, trace.num_turns, None)
    own = [replace(read, id=call.id) for read, call in zip(turn.calls, calls, strict=True)]
    return replace(turn, calls=tuple(own))
