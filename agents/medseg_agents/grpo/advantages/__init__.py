"""Advantages of turns: within groups of episodes of one case, over the batch, or from values."""

from medseg_agents.grpo.advantages.gae import turn_gae
from medseg_agents.grpo.advantages.groups import (
    GroupStatistics,
    batch_advantages,
    group_advantages,
    leave_one_out,
    reward_to_go,
)
from medseg_agents.grpo.advantages.reward_terms import normalize_then_sum, weighted_rewards

__all__ = [
    "GroupStatistics",
    "batch_advantages",
    "group_advantages",
    "leave_one_out",
    "normalize_then_sum",
    "reward_to_go",
    "turn_gae",
    "weighted_rewards",
]
