"""Muon in float32, for processors that have no products of bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch


class FloatMuon(torch.optim.Muon):
    """`torch.optim.Muon` with its Newton-Schulz iteration in float32, matrices of a shape at once.

    torch's own runs in bfloat16, a matrix at a time; on a CPU that has to imitate bfloat16 that
    takes 13 to 27 times as long. State and options are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    by_shape.setdefault((rows, columns), []).append(parameter)
            for parameters in by_shape.values():
                self._move(parameters, group)
        return loss

    def _move(self, parameters: Sequence[torch.Tensor], group: dict[str, Any]) -> None:
        """Take the step of parameters of one shape."""
        updates = []
        for parameter in parameters:
            state, grad = self.state[parameter], parameter.grad
            assert grad is not None
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(grad)
            momentum = state["momentum_buffer"]
            momentum.lerp_(grad, 1 - group["momentum"])
            updates.append(
                grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            )
        turned = orthogonalise(
            torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"]
        )
        rows, columns = parameters[0].shape
        rate = group["lr"] * math.sqrt(max(1, rows / columns))  # torch's default, "original"
        for parameter, update in zip(parameters, turned, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalise(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """Bring all singular values near 1 (Newton-Schulz, Jordan et al. 2024).

    Args:
        matrices: (N, R, C) float32.
        coefficients: Of the polynomial of degree five.
        steps: How often it is applied.
        eps: Least norm to divide by.

    Returns:
        (N, R, C) float32.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
