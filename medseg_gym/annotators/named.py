"""Policies by name, with options: "oracle-box:loosen=0.2", "noisy-hybrid:wrong=0.1:tau=0.02"."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from medseg_gym.annotators.box import OracleBox
from medseg_gym.annotators.box_click import OracleBoxClick
from medseg_gym.annotators.click import OracleClick
from medseg_gym.annotators.expert import BoxToPoint, Hybrid, SequentialClick
from medseg_gym.annotators.noisy import Noisy
from medseg_gym.annotators.scripted import CentreBox, OracleScript, RandomActions, StopAtOnce
from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy
from medseg_gym.prompts import ArrayCodec

NOISY = "noisy-"
"""Before the name of any oracle: the same with a human hand (see `Noisy`)."""

_POLICIES: dict[str, Callable[..., Policy]] = {
    "random": RandomActions,
    "stop": StopAtOnce,
    "centre-box": CentreBox,
    "oracle-box": OracleBox,
    "oracle-click": OracleClick,
    "oracle-box-click": OracleBoxClick,
    "box-to-point": BoxToPoint,
    "sequential-click": SequentialClick,
    "hybrid": Hybrid,
}
_OFTEN_NOISY = ("box-to-point", "sequential-click", "hybrid")


def policy_names() -> tuple[str, ...]:
    """Names that `make_policy` knows; the noisy ones of the experts among them."""
    return (*_POLICIES, *(NOISY + name for name in _OFTEN_NOISY))


def register_policy(name: str, factory: Callable[..., Policy]) -> None:
    """Make `make_policy(name, codec)` call `factory(codec, **options)`.

    Raises:
        PolicyError: The name is taken, contains a colon or a comma, or begins with "noisy-".
    """
    if name in _POLICIES or ":" in name or "," in name or name.startswith(NOISY):
        raise PolicyError(
            f"policy name {name!r} is taken or contains ':' or ',' or begins with {NOISY!r}"
        )
    _POLICIES[name] = factory


def make_policy(text: str, codec: ArrayCodec) -> Policy:
    """Build a policy from "name" or "name:option=number:option=number".

    "noisy-NAME" is any oracle with the slips of `Noisy`, whose options come beside its own; where
    both have one of the same name, it is the slip's.

    Args:
        text: As above.
        codec: Of the view it plays through (`envs.unwrapped.codec`).

    Raises:
        PolicyError: Unknown name or option, a value that is not a number, or slips for a policy
            that is no oracle.
    """
    name, *settings = text.split(":")
    plain = name.removeprefix(NOISY)
    factory, own, slips = _find(name)
    values = _read(text, settings, [*own, *(slip for slip in slips if slip not in own)])
    policy = factory(codec, **{k: v for k, v in values.items() if k in own and k not in slips})
    if plain == name:
        return policy
    if not isinstance(policy, OracleScript):
        raise PolicyError(f"policy {text!r}: only an oracle can be noisy, {plain!r} is none")
    return Noisy(policy, **{k: v for k, v in values.items() if k in slips})


def check_policy(text: str, others: Sequence[str] = ()) -> None:
    """Refuse a text that `make_policy` would refuse, before there is anything to play on.

    Args:
        text: For `make_policy`.
        others: Further names that could have been meant, for the error.

    Raises:
        PolicyError: As there, but for noise on what is no oracle.
    """
    name, *settings = text.split(":")
    _, own, slips = _find(name, others)
    _read(text, settings, [*own, *slips])


def _find(name: str, others: Sequence[str] = ()) -> tuple[Callable[..., Any], list[str], list[str]]:
    """The factory of a name, its options, and those of its slips."""
    plain = name.removeprefix(NOISY)
    factory = _POLICIES.get(plain)
    if factory is None:
        known = [*policy_names(), *others]
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise PolicyError(f"unknown policy {name[:80]!r}; {meant}known: {', '.join(known)}")
    return factory, _options_of(factory), _options_of(Noisy) if plain != name else []


def _options_of(factory: Callable[..., Any]) -> list[str]:
    return [p for p in inspect.signature(factory).parameters if p not in ("codec", "expert")]


def _read(text: str, settings: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    values = {}
    for setting in settings:
        option, _, value = setting.partition("=")
        if option not in known:
            name = text.partition(":")[0]
            raise PolicyError(
                f"policy {name!r} has no option {option!r}; it takes: {', '.join(known) or 'none'}"
            )
        try:
            values[option] = float(value)
        except ValueError:
            raise PolicyError(
                f"policy {text!r}: {option} must be a number, got {value!r}"
            ) from None
    return values
