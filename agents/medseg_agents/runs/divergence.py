"""Training that has diverged ends with an error instead of going on from weights that are lost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from medseg_gym.errors import MedSegError

_LOSS = re.compile(r"(.*[/_])?(loss|grad_norm)")


class TrainingDiverged(MedSegError):
    """A loss or a gradient is NaN or infinite."""


def check_losses(metrics: Mapping[str, float], where: str, lower: str) -> None:
    """Refuse losses and gradient norms that are not finite.

    Args:
        metrics: Of one row of the log; those whose name ends in "loss" or "grad_norm" count.
        where: Step or iteration, for the message.
        lower: Options to lower, for the message.

    Raises:
        TrainingDiverged: One is NaN or infinite.
    """
    lost = {n: v for n, v in metrics.items() if _LOSS.fullmatch(n) and not math.isfinite(v)}
    if lost:
        named = ", ".join(f"{name} is {float(value)}" for name, value in lost.items())
        raise TrainingDiverged(_message(where, named, lower))


def check_gradients(
    gradients: Iterable[torch.Tensor], where: str, lower: str, several: bool = False
) -> None:
    """Refuse gradients that are not finite, before an optimiser puts them into the weights.

    Args:
        gradients: Of all parameters; of sharded ones the own part is looked at.
        where: Step or iteration, for the message.
        lower: Options to lower, for the message.
        several: Learners ask each other, so that all raise together; all must call this.

    Raises:
        TrainingDiverged: One is NaN or infinite; no weight has changed then.
    """
    parts: list[torch.Tensor] = [_own_part(gradient) for gradient in gradients]
    parts = [part for part in parts if part.numel()]
    if not parts and not several:
        return
    # A maximum is NaN where an entry is, and cannot overflow as a sum of squares does.
    greatest = [norm.float() for norm in torch._foreach_norm(parts, math.inf)] if parts else []
    device = greatest[0].device if greatest else torch.device("cpu")
    lost = torch.zeros((), device=device)
    if greatest:
        lost = (~torch.stack([g.to(device) for g in greatest]).isfinite()).any().float()
    if several:
        torch.distributed.all_reduce(lost, op=torch.distributed.ReduceOp.MAX)
    if lost:
        raise TrainingDiverged(_message(where, "a gradient is NaN or infinite", lower))


def _own_part(gradient: Any) -> torch.Tensor:
    part: torch.Tensor = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return part.detach()


def _message(where: str, what: str, lower: str) -> str:
    return (
        f"{where}: {what}: training has diverged and ends here. Lower {lower}, and go on "
        "from a checkpoint before it or begin anew in another --out"
    )
