"""Checks of a user's policy: its parts, their signatures, and the number of its actions."""

from __future__ import annotations

import inspect
from typing import Any

from medseg_gym.errors import PolicyError


def check_policy(policy: Any, name: str) -> None:
    """Refuse what cannot play: without a part of the protocol, or with other arguments.

    Args:
        policy: Made by a user's factory.
        name: How it was named, for the message.

    Raises:
        PolicyError: It names what is missing or wrong, and what is wanted.
    """
    kind = type(policy).__name__
    lacking = [part for part in ("name", "sees_truth", "reset", "act") if not hasattr(policy, part)]
    if lacking:
        raise PolicyError(
            f"policy {name!r}: made a {kind}, which has no {' and no '.join(lacking)}; a policy "
            "has name (text), sees_truth (False or True), reset(slots, generators) and "
            "act(observations)"
        )
    arguments = ("observations", "episodes") if policy.sees_truth else ("observations",)
    for method, wanted in (("reset", ("slots", "generators")), ("act", arguments)):
        call = getattr(policy, method)
        try:
            inspect.signature(call).bind(*wanted)
        except ValueError:  # built in, without a signature
            continue
        except TypeError as problem:
            truth = f" (sees_truth is {policy.sees_truth})" if method == "act" else ""
            given = f"{inspect.signature(call)}" if callable(call) else f" = {call!r}"
            raise PolicyError(
                f"policy {name!r}: {kind}.{method}{given} cannot be called as "
                f"{method}({', '.join(wanted)}){truth}: {problem}"
            ) from None


def check_actions(policy: Any, actions: Any, slots: int) -> None:
    """Refuse what holds no action per slot.

    Args:
        policy: That gave them.
        actions: As `act` returned them.
        slots: How many are wanted.

    Raises:
        PolicyError: It says what was returned.
    """
    if not hasattr(actions, "__len__") or isinstance(actions, str) or len(actions) != slots:
        shape = getattr(actions, "shape", None)
        given = f"shape {tuple(shape)}" if shape is not None else f"{type(actions).__name__}"
        raise PolicyError(
            f"policy {policy.name!r}: act returned {given} for {slots} slots; an action per slot "
            "is wanted: an integer array whose first side has that length, or a list of texts "
            "through the chat view"
        )
