"""Knobs of `medseg train sb3-ppo`."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_agents.arrays.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class SB3PPOConfig(PPOSettings):
    """PPO of Stable-Baselines3.

    Args:
        max_grad_norm: Gradients are scaled down to this norm.
        target_kl: An update ends early when the policy has moved 1.5 times this far; None never.
    """

    max_grad_norm: float = 0.5
    target_kl: float | None = None
