"""A configuration's fields as the options of a command, each with its docstring as help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer

_ENTRY = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", re.MULTILINE | re.DOTALL)


def describe_fields(config: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say of each field, on one line."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Args:\n")[2]
        found.update({name: " ".join(body.split()) for name, body in _ENTRY.findall(text)})
    return found


def with_options(config: type, command: Callable[..., None]) -> Callable[..., None]:
    """Make a command that takes the fields of a dataclass as options.

    Args:
        config: A dataclass whose fields are texts, numbers, or tuples of texts (comma between),
            optional or not.
        command: `command(config, **own)`, with the options of its own annotated for typer.

    Returns:
        A function for `typer.Typer.command`.
    """
    help_of, types = describe_fields(config), get_type_hints(config)
    parameters, tuples = [], set()
    for field in fields(config):
        kind: Any = types[field.name]
        default: Any = field.default
        if default is MISSING:
            raise TypeError(f"{config.__name__}.{field.name} needs a default")
        if getattr(kind, "__origin__", None) is tuple:
            tuples.add(field.name)
            kind, default = str, ",".join(default)
        option: Any = Annotated[kind, typer.Option(help=help_of.get(field.name, ""))]
        parameters.append(_parameter(field.name, option, default))
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    def run(**values: Any) -> None:
        given = {
            name: tuple(value.split(",")) if name in tuples else value
            for name, value in values.items()
            if name in types
        }
        command(config(**given), **{k: v for k, v in values.items() if k not in types})

    signature = inspect.Signature([*own, *parameters])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    run.__doc__ = command.__doc__
    return run


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
