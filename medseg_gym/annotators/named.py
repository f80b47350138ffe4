"""Policies by name, with options: "oracle-box:loosen=0.2"."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from medseg_gym.annotators.box import OracleBox
from medseg_gym.annotators.click import OracleClick
from medseg_gym.annotators.scripted import CentreBox, RandomActions, StopAtOnce
from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy
from medseg_gym.prompts import ArrayCodec

_POLICIES: dict[str, Callable[..., Policy]] = {
    "random": RandomActions,
    "stop": StopAtOnce,
    "centre-box": CentreBox,
    "oracle-box": OracleBox,
    "oracle-click": OracleClick,
}


def policy_names() -> tuple[str, ...]:
    """Names that `make_policy` knows."""
    return tuple(_POLICIES)


def register_policy(name: str, factory: Callable[..., Policy]) -> None:
    """Make `make_policy(name, codec)` call `factory(codec, **options)`.

    Raises:
        PolicyError: The name is taken, or contains a colon or a comma.
    """
    if name in _POLICIES or ":" in name or "," in name:
        raise PolicyError(f"policy name {name!r} is taken or contains ':' or ','")
    _POLICIES[name] = factory


def make_policy(text: str, codec: ArrayCodec) -> Policy:
    """Build a policy from "name" or "name:option=number:option=number".

    Args:
        text: As above.
        codec: Of the view it plays through (`envs.unwrapped.stage.view.codec`).

    Raises:
        PolicyError: Unknown name or option, or a value that is not a number.
    """
    name, *settings = text.split(":")
    factory = _POLICIES.get(name)
    if factory is None:
        raise PolicyError(f"unknown policy {name!r}; known: {', '.join(_POLICIES)}")
    options = {}
    taken = [p for p in inspect.signature(factory).parameters if p != "codec"]
    for setting in settings:
        option, _, value = setting.partition("=")
        if option not in taken:
            raise PolicyError(
                f"policy {name!r} has no option {option!r}; it takes: {', '.join(taken) or 'none'}"
            )
        try:
            options[option] = float(value)
        except ValueError:
            raise PolicyError(
                f"policy {text!r}: {option} must be a number, got {value!r}"
            ) from None
    return factory(codec, **options)
