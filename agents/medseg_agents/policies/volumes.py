"""Policies of whole volumes: `oracle-key-slice`, and `volume:POLICY` where a name could be both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from medseg_agents.policies.location_prior import CASES, location_prior
from medseg_agents.policies.options import require_argument
from medseg_agents.policies.specs import PolicySpec
from medseg_gym import annotators
from medseg_gym.annotators.registry import VOLUME_ANNOTATORS, VOLUME_ENV
from medseg_gym.errors import PolicyError
from medseg_gym.option_values import convert_options, declared_options, takes_any_option
from medseg_gym.policy import Policy
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec

VIEW: dict[str, Any] = {"slices": int, "bins": int}
"""Arguments of `MedSegVolume-v0` that stand among the options of a policy."""

PRIOR = "location-prior"


@takes_spec
def policy_spec(spec: Spec) -> PolicySpec:
    """Read "volume:POLICY": a policy of `MedSegVolume-v0`, with `VIEW` among its options.

    "volume:random" and "volume:stop" are those of volumes, where the plain names are those of
    images; so are "volume:location-prior:CASES", whose cases are a spec of volumes, and a class of
    your own that does not say which environment it plays. What volumes alone have needs no prefix.

    Raises:
        PolicyError: Unknown policy or option, or a value of another type.
    """
    require_argument(spec)
    inner = VOLUME_ANNOTATORS.parse(spec.rest)
    if inner.kind == PRIOR:
        if not inner.rest.strip():
            raise PolicyError(f"{spec}: names no cases; give volume:{PRIOR}:phantoms-volume")
        prior = location_prior(inner.rest, CASES)
        return PolicySpec(spec.text, _named(spec.text, prior.build), VOLUME_ENV)
    factory = VOLUME_ANNOTATORS.find(inner, [PRIOR])
    if isinstance(factory, PolicySpec):
        return replace(factory, env_id=VOLUME_ENV)
    if inner.argument:
        raise PolicyError(f"policy {inner.kind!r} has no argument behind a colon")
    own = declared_options(factory, 1) if callable(factory) else {}
    free = callable(factory) and takes_any_option(factory)
    given = convert_options(f"policy {inner}", inner.options, {**own, **VIEW}, PolicyError, free)
    view = {name: value for name, value in given.items() if name in VIEW and name not in own}
    options = {name: value for name, value in given.items() if name not in view}

    def build(envs: Any) -> Policy:
        return annotators.make(inner.kind, envs.codec, **options)

    if annotators.find_volume_policy(spec.rest) is not None:  # the prefix tells nothing new
        return PolicySpec(spec.rest, build, VOLUME_ENV, view)
    return PolicySpec(spec.text, _named(None, build), VOLUME_ENV, view)


def _named(name: str | None, build: Callable[[Any], Policy]) -> Callable[[Any], Policy]:
    """Let a policy's name say that it plays volumes, where one of images has the same."""

    def build_named(envs: Any) -> Policy:
        policy = build(envs)
        policy.name = name or f"volume:{policy.name}"
        return policy

    return build_named
