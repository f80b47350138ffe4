"""The processes of a run on the GPUs of a machine, and what each GPU then holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medseg_agents.grpo.plan.conversation import Conversation
from medseg_agents.grpo.plan.machine import Machine
from medseg_agents.grpo.plan.memory import (
    CONTEXT,
    Part,
    learner_parts,
    runner_parts,
    total,
    vllm_parts,
    weight_parts,
)
from medseg_agents.grpo.plan.shape import ModelShape
from medseg_agents.grpo.settings import ChatRun
from medseg_agents.runs.gpus import GpuRequest, plan_gpus


@dataclass(frozen=True)
class Process:
    """A process of a run.

    Args:
        name: "learner", "runner", or "learner and runner" where one process does both.
        parts: Of its memory.
        gpus: It asks for so many, or for a part of one.
    """

    name: str
    parts: tuple[Part, ...]
    gpus: float

    @property
    def bytes(self) -> float:
        """At its peak."""
        return total(self.parts)


def processes(
    shape: ModelShape, run: ChatRun, machine: Machine, talk: Conversation
) -> list[Process]:
    """Return the processes of a run that use GPUs.

    Args:
        shape: Of the model.
        run: Its settings.
        machine: Where it shall run.
        talk: An episode.

    Raises:
        MedSegError: The settings ask for more GPUs than there are, see `plan_gpus`.
    """
    gpus = plan_gpus(GpuRequest.of(run), machine.gpus, float(machine.gpus))
    slots = slots_of(run)
    context = [Part("CUDA and libraries", CONTEXT, "about")]
    segmenter = [Part("segmenter", machine.known.segmenter * 1e9, "with cached embeddings, about")]
    vllm = run.engine == "vllm"
    plays = (vllm_parts(run, machine.bytes) if vllm else runner_parts(shape, run, talk, slots)) + (
        [] if run.shared_backbone else segmenter
    )
    learns = weight_parts(shape, run, True) + learner_parts(shape, run, talk)
    held = weight_parts(shape, run, False)
    result = list[Process]()
    together = run.env_runners == 0 and run.learners == 0
    if not together:  # runners are started first
        for _ in range(max(1, run.env_runners)):
            parts = context + held + plays
            result.append(Process("runner", tuple(parts), gpus.per_runner))
    for _ in range(max(1, run.learners)):
        parts = context + learns + (plays if together else [])
        name = "learner and runner" if together else "learner"
        result.append(Process(name, tuple(parts), gpus.per_learner))
    if run.shared_backbone:
        result.append(Process("segmenter", (*context, *segmenter), gpus.backbone))
    return [process for process in result if process.gpus > 0]


def slots_of(run: ChatRun) -> int:
    """Return the episodes that one runner generates as a batch."""
    own = -(-run.episodes // max(1, run.env_runners))
    return min(own, run.num_envs) if run.num_envs else own


def place(started: Sequence[Process], gpus: int) -> list[list[Process]]:
    """Put processes on GPUs in the order in which they start: parts of one fill a GPU up.

    Args:
        started: The processes.
        gpus: Their number.

    Returns:
        The processes of each GPU. A process of several GPUs counts on each.
    """
    free = [1.0] * gpus
    placed: list[list[Process]] = [[] for _ in range(gpus)]
    for process in started:
        wanted = process.gpus
        while wanted > 1e-6:
            part = min(1.0, wanted)
            place = next((i for i, left in enumerate(free) if left >= part - 1e-6), None)
            if place is None:
                break  # refused by `plan_gpus` before, up to rounding
            free[place] -= part
            placed[place].append(process)
            wanted -= part
    return placed
