"""Knobs of `medseg train rllib-ppo`."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_agents.arrays.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class RLlibPPOConfig(PPOSettings):
    """PPO of RLlib.

    Args:
        env_runners: Processes that play, each with `num_envs` slots; 0 plays in the learner's own.
        learners: Processes that learn, each from its part of every batch; 0 learns in this one.
        eval_runners: Processes that play RLlib's own evaluation episodes beside training.
        max_grad_norm: Gradients are scaled down to this norm.
        shared_backbone: Serve the backbone from one Ray actor to all runners, so that runners
            without a GPU share one model and one batch; see `backbone="ray:NAME"`.
    """

    env_runners: int = 0
    learners: int = 0
    eval_runners: int = 0
    max_grad_norm: float = 0.5
    shared_backbone: bool = False
