"""Policies that `medseg serve` is given by spec: what this package knows, and what others add."""

from __future__ import annotations

from medseg_gym.object_paths import load_object
from medseg_gym.serving.policy_to_build import PolicyToBuild

_makers: list[str] = []


def use_maker(path: str) -> None:
    """Let specs be read by a function of another package, which is imported when it is needed.

    Args:
        path: "module:function" of a function that takes a spec and returns a `PolicyToBuild`.
    """
    if path not in _makers:
        _makers.append(path)


def read_policy(text: str) -> PolicyToBuild:
    """Read the spec of a policy.

    Raises:
        PolicyError: Unknown policy or option.
    """
    if _makers:
        made: PolicyToBuild = load_object(_makers[-1])(text)
        return made
    from medseg_gym import annotators
    from medseg_gym.annotators.registry import VOLUME_ENV
    from medseg_gym.play.options import BuiltIn

    plays_volumes = annotators.find_volume_policy(text) is not None
    return BuiltIn(text, VOLUME_ENV) if plays_volumes else BuiltIn(text)
