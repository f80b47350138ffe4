"""Options behind a policy's name: "MODEL?temperature=0.7&history=2&texts=terse"."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl

from medseg_gym.errors import PolicyError

CHAT_VIEW: dict[str, Any] = {
    "image_size": int,
    "texts": str,
    "overlay": str,
    "overlay_strength": float,
    "thinking": bool | typing.Literal["refuse"],
    "coordinates": str,
    "tools": tuple,
}
"""Arguments of `MedSegChat-v0` that belong to the view alone; tools are joined by "+"."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True)
class NamedOptions:
    """What a name says.

    Args:
        name: Before the question mark.
        policy: Arguments of the policy's own options.
        view: Arguments of the environment.
    """

    name: str
    policy: dict[str, Any]
    view: dict[str, Any]


def read_named_options(
    kind: str, argument: str, options: type, view_options: Mapping[str, Any] = CHAT_VIEW
) -> NamedOptions:
    """Read the text behind "KIND:".

    Args:
        kind: For messages.
        argument: `NAME` or `NAME?option=value&option=value`, values percent-encoded where need be.
        options: Dataclass of the policy's options; a value becomes what its field is declared as.
        view_options: Arguments of the environment that may be named too, and their types.

    Raises:
        PolicyError: No name, an option that neither has, or a value of another type.
    """
    name, _, query = argument.partition("?")
    if not name.strip():
        raise PolicyError(f"{kind}: names nothing; give {kind}:NAME or {kind}:NAME?option=value")
    own = typing.get_type_hints(options)
    known = [*(f.name for f in fields(options)), *view_options]
    policy: dict[str, Any] = {}
    view: dict[str, Any] = {}
    for option, text in parse_qsl(query, keep_blank_values=True):
        if option not in known:
            raise PolicyError(f"{kind}:{name} has no option {option!r}; known: {', '.join(known)}")
        is_view = option in view_options
        try:
            value = _convert(text, view_options[option] if is_view else own[option])
        except ValueError:
            raise PolicyError(f"{kind}:{name}: {option} cannot be {text!r}") from None
        (view if is_view else policy)[option] = value
    return NamedOptions(name, policy, view)


def _convert(text: str, declared: Any) -> Any:
    """A text as the type that a field is declared with; the first that fits of several."""
    choices = typing.get_args(declared) if _is_union(declared) else (declared,)
    if type(None) in choices and text.lower() == "none":
        return None
    for choice in sorted(choices, key=lambda choice: choice is str):  # str takes anything: last
        origin = typing.get_origin(choice) or choice
        if origin is bool and text.lower() in (*_TRUE, *_FALSE):
            return text.lower() in _TRUE
        if origin in (int, float):
            try:
                return origin(text)
            except ValueError:
                continue
        if origin is str or origin is typing.Literal:
            return text
        if origin is tuple:
            return tuple(text.split())  # a plus in a query is a blank
    raise ValueError(text)


def _is_union(declared: Any) -> bool:
    return typing.get_origin(declared) in (typing.Union, types.UnionType)
