"""PolicySpec `shuffled:NAME`: the same policy, shown the pictures of other cases.

A control. What a policy is worth without seeing its case is what it knows of the task's words and
of where things usually are; only the rest is sight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg_agents.policies.specs import PolicySpec, make_policy_spec
from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy


class Shuffled:
    """Shows every slot the picture of the slot half the batch away; words stay.

    In the chat view the mask in the picture goes along. Half a batch away, because neighbours often
    share a picture.

    Args:
        policy: Who plays; it must not be shown the truth.

    Raises:
        PolicyError: A policy that sees the truth.
    """

    sees_truth = False

    def __init__(self, policy: Policy) -> None:
        if policy.sees_truth:
            raise PolicyError(f"{policy.name} is shown the truth; other pictures change nothing")
        self.policy = policy
        self.name = f"shuffled:{policy.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the policy."""
        return getattr(self.policy, "settings", {})

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        self.policy.reset(slots, generators)

    def act(self, observations: Mapping[str, Any]) -> Any:
        """Act on the own words and another slot's picture.

        Raises:
            PolicyError: A single slot, which has no other.
        """
        images = observations["image"]
        if len(images) < 2:
            raise PolicyError(f"{self.name} needs at least 2 slots to exchange pictures")
        swapped = np.roll(images, len(images) // 2, axis=0)
        return self.policy.act({**observations, "image": swapped})


def shuffled(argument: str) -> PolicySpec:
    """Read what stands behind "shuffled:"; the view is that of the policy there."""
    inner = make_policy_spec(argument)
    return replace(
        inner, name=f"shuffled:{inner.name}", build=lambda envs: Shuffled(inner.build(envs))
    )
