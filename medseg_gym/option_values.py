"""Texts as the values of typed options: of a dataclass's fields or a factory's parameters."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from medseg_gym.errors import MedSegError, nearest

TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def declared_options(owner: Callable[..., Any] | type, skip: int = 0) -> dict[str, Any]:
    """Return name and type of every option: fields of a dataclass, parameters of a callable.

    Args:
        owner: A dataclass, a class or a function.
        skip: Leading parameters that are no options; of a dataclass none are skipped.
    """
    if dataclasses.is_dataclass(owner) and isinstance(owner, type) and not skip:
        hints = typing.get_type_hints(owner)
        return {f.name: hints[f.name] for f in dataclasses.fields(owner) if f.init}
    target = owner.__init__ if isinstance(owner, type) else owner  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):  # annotations that name what only type checkers see
        hints = {}
    options = {}
    for number, (name, parameter) in enumerate(inspect.signature(owner).parameters.items()):
        if number >= skip and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        ):
            options[name] = hints.get(name, _type_of_default(parameter.default))
    return options


def takes_any_option(owner: Callable[..., Any]) -> bool:
    """Return whether a callable has `**options`."""
    parameters = inspect.signature(owner).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def convert_options(
    where: str,
    texts: Mapping[str, str],
    declared: Mapping[str, Any],
    error: type[MedSegError] = MedSegError,
    others: bool = False,
) -> dict[str, Any]:
    """Convert the texts of a spec's options to their declared types.

    Args:
        where: The spec, for messages.
        texts: Value by option, as text.
        declared: Type by option.
        error: Raised about them.
        others: Take options that are not declared too, as numbers where they read as such.

    Raises:
        MedSegError: An option that is not declared (with the nearest), or a value that its type
            does not have.
    """
    values = {}
    for name, text in texts.items():
        if name not in declared and not others:
            raise error(
                f"{where}: no option {name!r}{nearest(name, declared)}; it takes: "
                f"{', '.join(declared) or 'none'}"
            )
        try:
            values[name] = convert(text, declared.get(name, Any))
        except ValueError as problem:
            raise error(f"{where}: {name} cannot be {text!r}: {problem}") from None
    return values


def convert(text: str, declared: Any) -> Any:
    """Convert a text to a type: bool, int, float (finite), str, Literal, tuple, X | None, Path.

    Raises:
        ValueError: The type has no such value; the message says what is wanted.
    """
    if declared is inspect.Parameter.empty or declared is Any:
        return _literal(text)
    origin = typing.get_origin(declared)
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(declared)
        if type(None) in choices and text.lower() in ("none", ""):
            return None
        # Text takes anything, so it comes last.
        for choice in sorted(choices, key=lambda choice: choice is str):
            if choice is type(None):
                continue
            try:
                return convert(text, choice)
            except ValueError:
                continue
        wanted = ["none" if choice is type(None) else _type_name(choice) for choice in choices]
        raise ValueError(f"{' or '.join(wanted)} is wanted")
    if origin is typing.Literal:
        for choice in typing.get_args(declared):
            if str(choice) == text:
                return choice
        known = [str(choice) for choice in typing.get_args(declared)]
        raise ValueError(f"use one of {', '.join(known)}{nearest(text, known)}")
    if origin in (tuple, list) or declared in (tuple, list):
        arguments = typing.get_args(declared) or (str, ...)
        inner = [kind for kind in arguments if kind is not Ellipsis]
        parts = [part for part in text.replace(",", "+").split("+") if part]
        any_length = len(arguments) > len(inner) or origin is list
        kinds = inner * len(parts) if any_length else inner
        if len(kinds) != len(parts):
            raise ValueError(f"{len(kinds)} values with commas (or +) between them are wanted")
        return (origin or declared)(
            convert(part, kind) for part, kind in zip(parts, kinds, strict=True)
        )
    if declared is bool:
        if text.lower() not in (*TRUE, *FALSE):
            raise ValueError("use 1 or 0")
        return text.lower() in TRUE
    if declared is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("a whole number is wanted") from None
    if declared is float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError("a number is wanted") from None
        if not math.isfinite(value):
            raise ValueError("a finite number is wanted")
        return value
    if declared is str:
        return text
    return _literal(text) if not callable(declared) else declared(text)


def _literal(text: str) -> Any:
    """A value without a declared type: a number or a truth value where it reads as one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _type_of_default(default: Any) -> Any:
    return Any if default in (inspect.Parameter.empty, None) else type(default)


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))
