"""Decisions that learners take together, so that all make the same calls in the same order.

Passes of sharded learners are collective calls, and so is the last backward pass under DDP. A
learner that makes one call more than the others, or leaves early with an error, lets them wait
until a timeout of half an hour. So counts are agreed on first, and errors are raised on all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from medseg_agents.grpo.errors import OtherLearnerFailed

T = TypeVar("T")


def several() -> bool:
    """Return whether this process is one of several learners."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def largest(value: float, device: torch.device | str = "cpu") -> float:
    """Return the largest of all learners' values; a collective call.

    Args:
        value: This learner's.
        device: Where collective calls take their tensors.
    """
    if not several():
        return value
    tensor = torch.tensor(float(value), dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()


@contextmanager
def together(device: torch.device | str = "cpu") -> Iterator[None]:
    """Let a block that makes no collective call fail on all learners, or on none.

    Args:
        device: As in `largest`.

    Raises:
        OtherLearnerFailed: It failed on another learner; that one raises its own error.
    """
    try:
        yield
    except Exception:
        largest(1, device)
        raise
    if largest(0, device):
        raise OtherLearnerFailed("another learner failed at this point; its error says why")


def pad_to_all(
    parts: Sequence[Sequence[T]],
    device: torch.device | str = "cpu",
    filler: Sequence[T] | None = None,
) -> list[tuple[Sequence[T], bool]]:
    """Give every learner as many parts as the learner with most has.

    Args:
        parts: Micro-batches of this learner.
        device: As in `largest`.
        filler: What is repeated; None is the first item, and then there must be one.

    Returns:
        The parts, and after them repetitions of the filler; beside each whether it counts.
        Repetitions are computed like the rest and must weigh nothing.
    """
    count = int(largest(len(parts), device))
    missing = count - len(parts)
    repeated = parts[0][:1] if filler is None and missing else filler
    return [(part, True) for part in parts] + [(repeated or (), False)] * missing
