"""Policy `shuffled-images:POLICY`: the same policy, shown the images of other cases.

A control. What a policy is worth without seeing its case is what it knows of the task's words and
of where things usually are; only the rest is sight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg_agents.policies.options import require_argument
from medseg_agents.policies.registry import make
from medseg_agents.policies.specs import PolicySpec
from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


class ShuffledImages:
    """Shows every slot the images of the slot half the batch away; words stay.

    In the chat view the mask in an image goes along. Half a batch away, because neighbours often
    share an image.

    Args:
        policy: The policy that plays; it must not be shown the truth.
        image_keys: Entries of an observation that are exchanged (`envs.view.image_keys`).

    Raises:
        PolicyError: A policy that sees the truth.
    """

    sees_truth = False

    def __init__(self, policy: Policy, image_keys: Sequence[str] = ("image",)) -> None:
        if policy.sees_truth:
            raise PolicyError(f"{policy.name} is shown the truth; other images change nothing")
        self.policy, self.image_keys = policy, tuple(image_keys)
        self.name = f"shuffled-images:{policy.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the policy."""
        return getattr(self.policy, "settings", {})

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        self.policy.reset(slots, generators)

    def act(self, observations: Mapping[str, Any]) -> Any:
        """Act on the own words and another slot's images.

        Raises:
            PolicyError: A single slot, which has no other.
        """
        images = {key: observations[key] for key in self.image_keys}
        slots = len(next(iter(images.values())))
        if slots < 2:
            raise PolicyError(f"{self.name} needs at least 2 slots to exchange images")
        swapped = {key: np.roll(one, slots // 2, axis=0) for key, one in images.items()}
        return self.policy.act({**observations, **swapped})


@takes_spec
def shuffled_images(spec: Spec) -> PolicySpec:
    """Read "shuffled-images:POLICY"; the view is that of the policy."""
    require_argument(spec)
    inner = make(spec.rest)
    return replace(
        inner,
        name=f"{spec.kind}:{inner.name}",
        build=lambda envs: ShuffledImages(inner.build(envs), envs.view.image_keys),
    )
