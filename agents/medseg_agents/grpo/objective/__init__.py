"""The loss over tokens: averaging, importance ratios, clipping, and sampler-learner mismatch.

`chat_loss` is the whole of it; the other names are its parts.
"""

from medseg_agents.grpo.objective.importance import sampler_correction, segment_mean
from medseg_agents.grpo.objective.loss import chat_loss
from medseg_agents.grpo.objective.mismatch import mismatch_bound, require_agreement
from medseg_agents.grpo.objective.over_learners import OverLearners
from medseg_agents.grpo.objective.surrogate import k3, policy_loss
from medseg_agents.grpo.objective.token_weights import StepTotals, token_weights

__all__ = [
    "OverLearners",
    "StepTotals",
    "chat_loss",
    "k3",
    "mismatch_bound",
    "policy_loss",
    "require_agreement",
    "sampler_correction",
    "segment_mean",
    "token_weights",
]
