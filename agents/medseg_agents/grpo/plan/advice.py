"""Settings that make a run fit, where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from medseg_agents.grpo.plan.placement import slots_of
from medseg_agents.grpo.settings import ChatRun
from medseg_gym.errors import MedSegError


@dataclass(frozen=True)
class Advice:
    """Changes of settings, one after the other, and what the fullest GPU then holds.

    Args:
        changes: Value by option.
        gigabytes: Of the fullest GPU with all changes.
        fits: Whether that is enough.
    """

    changes: dict[str, Any]
    gigabytes: float
    fits: bool


def advise(
    run: ChatRun, needed: Callable[[ChatRun], float], room: float, gpus: int
) -> Advice | None:
    """Look for settings with which a run fits, cheap ones first.

    A change is kept only where it makes the fullest GPU hold less. What costs nothing but time goes
    first; what changes the trained model (adapters in the place of all weights) comes last.

    Args:
        run: Settings that do not fit.
        needed: Bytes of the fullest GPU under other settings.
        room: Bytes of a GPU.
        gpus: Their number.

    Returns:
        The changes; None where none helps.
    """
    size, changes = needed(run), dict[str, Any]()
    for change in _changes(run, gpus):
        try:
            other = replace(run, **{**changes, **change})
            smaller = needed(other)
        except MedSegError:  # settings that do not go together
            continue
        if smaller < size:
            size, changes = smaller, {**changes, **change}
            if size <= room:
                return Advice(changes, size / 1e9, True)
    return Advice(changes, size / 1e9, False) if changes else None


def _changes(run: ChatRun, gpus: int) -> Iterator[dict[str, Any]]:
    if not run.gradient_checkpointing:
        yield {"gradient_checkpointing": True}
    micro = run.micro_batch
    while micro > 1:
        micro //= 2
        yield {"micro_batch": micro}
    slots = slots_of(run)
    slots -= slots % run.num_generations
    while slots > run.num_generations:
        slots = max(run.num_generations, slots // 2 // run.num_generations * run.num_generations)
        yield {"num_envs": slots}
    if run.logit_chunk == 0 or run.logit_chunk > 128:
        yield {"logit_chunk": 128}
    if run.lora_rank and run.dtype != "bfloat16":
        yield {"dtype": "bfloat16"}
    if run.precision != "bfloat16":
        yield {"precision": "bfloat16"}
    if run.engine == "vllm" and not run.vllm_sleep:
        yield {"vllm_sleep": True}
    if gpus > 1 and not run.shard:
        share: dict[str, Any] = {"gpus_per_learner": None, "gpus_per_runner": None}
        yield {"shard": True, "learners": gpus // 2, "env_runners": gpus - gpus // 2, **share}
        yield {"shard": True, "learners": gpus - 1, "env_runners": 1, **share}
    if not run.lora_rank:
        yield {"lora_rank": 64, "dtype": "bfloat16", "precision": "bfloat16"}
