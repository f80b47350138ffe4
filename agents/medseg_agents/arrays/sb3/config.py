"""Settings of `medseg train sb3-ppo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_agents.arrays.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class SB3PPOConfig(PPOSettings):
    """PPO of Stable-Baselines3."""

    topic: ClassVar[str] = "Stable-Baselines3"

    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""

    target_kl: float | None = None
    """An update ends early when the policy has moved 1.5 times this far; None never."""
