"""Muon and AdamW as one optimiser, groups of parameters, and the learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from medseg_agents.arrays.muon import FloatMuon
from medseg_gym.backbones.batching.fused import multiplies_bfloat16

VALUE_HEAD = "value_head"
_INSIDE = ("layers", "blocks", "merger", "deepstack_merger_list")


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) on the matrices inside layers, AdamW on everything else.

    A tiny vision-language model trained from nothing needs about a third of the examples that AdamW
    alone needs. Embeddings, the patch projection, norms and biases are AdamW's.

    Args:
        model: Whose trainable parameters are split.
        lr: Of AdamW.
        muon_lr: Of Muon.
        weight_decay: Of both, on parameters with two or more dimensions.
    """

    def __init__(
        self, model: nn.Module, lr: float = 2e-3, muon_lr: float = 0.02, weight_decay: float = 0.01
    ) -> None:
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        matrices = [p for n, p in trained if p.ndim == 2 and _is_inside(n)]
        taken = {id(p) for p in matrices}
        rest = [p for _, p in trained if id(p) not in taken]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        adam = torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.95))
        self.parts: list[torch.optim.Optimizer] = [adam]
        if matrices:
            slow = matrices[0].device.type == "cpu" and not multiplies_bfloat16()
            muon = FloatMuon if slow else torch.optim.Muon
            self.parts.append(muon(matrices, lr=muon_lr, weight_decay=weight_decay, momentum=0.95))
        super().__init__([{"params": [p for _, p in trained]}], {})
        self._share_groups()

    def _share_groups(self) -> None:
        # The same dictionaries, so that a scheduler that sets a rate here sets it in the parts.
        self.param_groups = [group for optimiser in self.parts for group in optimiser.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both."""
        loss = closure() if closure else None
        for optimiser in self.parts:
            optimiser.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """States of both parts."""
        return {"parts": [optimiser.state_dict() for optimiser in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both parts."""
        for optimiser, state in zip(self.parts, state_dict["parts"], strict=True):
            optimiser.load_state_dict(state)
        self._share_groups()


def _is_inside(name: str) -> bool:
    return any(f".{place}." in name for place in _INSIDE)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], lr: float, value_lr: float
) -> list[dict[str, Any]]:
    """Divide what is trained into the policy, and the value head if there is one.

    A head that begins with zeros has to learn a value within the iterations of a critic warm-up; at
    a policy's rate (1e-6, say) it would know nothing at the end of the run.

    Args:
        named: Parameters by name, a wrapper's prefix included.
        lr: Of the policy.
        value_lr: Of the value head.

    Returns:
        Groups for an optimiser, the policy's first.
    """
    policy: list[torch.nn.Parameter] = []
    head: list[torch.nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            (head if VALUE_HEAD in name.split(".") else policy).append(parameter)
    groups: list[dict[str, Any]] = [{"params": policy, "lr": lr}]
    if head:
        groups.append({"params": head, "lr": value_lr})
    return groups


def rate_over_run(
    schedule: str, steps: int, warmup: int, final: float = 0.05
) -> Callable[[int], float]:
    """Factor of the learning rate at a step.

    Args:
        schedule: "cosine" falls to `final` along half a cosine, "linear" along a line; "constant"
            stays.
        steps: Of the run.
        warmup: Steps from 0 to 1 at the beginning.
        final: Factor at the end.
    """

    def factor(step: int) -> float:
        rising = min(1.0, (step + 1) / max(1, warmup))
        if schedule == "constant":
            return rising
        done = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
        falling = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
        return rising * (final + (1 - final) * falling)

    return factor


def steady_then_falling(step: int, steps: int, warmup: int, falling: float) -> float:
    """Return the factor of the learning rate at a step: a rise, a plateau and a line to nothing.

    Args:
        step: From 0.
        steps: Of the run.
        warmup: Steps of the rise.
        falling: Share of the steps, at the end, of the fall; it stops at a hundredth.
    """
    return min(1.0, (step + 1) / warmup, max((steps - step) / (falling * steps), 0.01))
