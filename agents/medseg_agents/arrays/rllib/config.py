"""Settings of `medseg train rllib-ppo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_agents.arrays.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class RLlibPPOConfig(PPOSettings):
    """PPO of RLlib."""

    topic: ClassVar[str] = "RLlib"
    free: ClassVar[tuple[str, ...]] = ("eval_runners", "shared_backbone")

    env_runners: int = 0
    """Processes that play, each with `num_envs` slots; 0 plays in the learner's own."""

    learners: int = 0
    """Processes that learn, each from its part of every batch; 0 learns in this one."""

    eval_runners: int = 0
    """Processes that play RLlib's own evaluation episodes beside training."""

    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""

    shared_backbone: bool = False
    """Serve the backbone from one Ray actor to all runners, so that runners without a GPU share one
    model and one batch; see `backbone="ray:NAME"`.
    """
