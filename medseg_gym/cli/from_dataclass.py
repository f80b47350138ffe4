"""Commands whose options are the fields of a dataclass: help, YAML files and printed settings.

Typer stays the one command-line library: it already carries all groups of `medseg`, and a dataclass
needs but this file to feed it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from medseg_gym.cli.output_options import with_output
from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import load_object
from medseg_gym.options import FieldDescription, Options, describe_fields, read_mapping

O = TypeVar("O", bound=Options)  # noqa: E741

_CONFIG = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of options; what is given on the command line wins.",
        rich_help_panel="Configuration",
    ),
]


def _let_others_miss(context: typer.Context, printing: bool) -> bool:
    """Print the options alone: what a command needs besides is not asked for."""
    if printing:
        for parameter in context.command.params:
            parameter.required = False
    return printing


_PRINT = Annotated[
    bool,
    typer.Option(
        "--print-config",
        is_eager=True,
        callback=_let_others_miss,
        help="Print all options with their values as YAML, for --config, and end.",
        rich_help_panel="Configuration",
    ),
]


def with_options(
    config: type[Options],
    command: Callable[..., None],
    results: bool = True,
    stored: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Callable[..., None]:
    """Make a command that takes the fields of a dataclass as options.

    Args:
        config: Its fields are texts, numbers, truth values, Literals, or tuples of texts (comma
            between, or the option again where the field is `repeated`). A field without a default
            is required, on the command line or in the file.
        command: `command(config, **own)`, with the options of its own annotated for typer.
        results: Whether it has any, see `with_output`.
        stored: Called with the values of the command's own options; what it returns counts where a
            field is given neither on the command line nor in the file.

    Returns:
        A function for `typer.Typer.command`. It also takes `--config FILE`, `--print-config` and
        the options of `with_output`.
    """
    described = describe_fields(config)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_shown(one),
            annotation=Annotated[
                _cli_type(one),
                typer.Option(
                    *((one.short, "--" + name.replace("_", "-")) if one.short else ()),
                    help=one.text,
                    rich_help_panel=one.topic,
                ),
            ],
        )
        for name, one in described.items()
    ]
    for name, annotation, default in (
        ("config_file", _CONFIG, None),
        ("print_config", _PRINT, False),
    ):
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
        )

    def run(context: typer.Context, **values: Any) -> None:
        file, printing = values.pop("config_file"), values.pop("print_config")
        given = _merged(context, config, file, {name: values.pop(name) for name in described})
        given = {**(stored(values) if stored else {}), **given}
        where = str(file) if file else ""
        if printing:
            typer.echo(config.template(config.checked(given, where)), nl=False)
            raise typer.Exit
        _require(config, given)
        command(config.from_mapping(given, where), **values)

    first = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    signature = inspect.Signature([first, *own, *parameters])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    run.__doc__ = command.__doc__
    run.__name__, run.__wrapped__ = command.__name__, command  # type: ignore[attr-defined]
    return with_output(run, results)


def _merged(
    context: typer.Context, config: type[Options], file: Path | None, values: dict[str, Any]
) -> dict[str, Any]:
    """Options of the file under those that were written on the command line."""
    described = describe_fields(config)
    in_file: Mapping[str, Any] = read_mapping(file) if file else {}
    merged = dict(in_file)
    for name, value in values.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            merged[name] = _value(value, described[name])
    return merged


def _require(config: type[Options], given: Mapping[str, Any]) -> None:
    described = describe_fields(config)
    lacking = [n for n, one in described.items() if one.default is MISSING and n not in given]
    if lacking and set(given) <= set(described):  # a misspelt one is named before a missing one
        flags = ", ".join("--" + name.replace("_", "-") for name in lacking)
        raise MedSegError(f"give {flags}, or set it in the file of --config")


def _value(value: Any, one: FieldDescription) -> Any:
    if _is_tuple(one.declared) and isinstance(value, str):
        if one.splitter:
            return tuple(load_object(one.splitter)(value))
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _is_tuple(declared: Any) -> bool:
    return any(
        typing.get_origin(choice) is tuple for choice in (declared, *typing.get_args(declared))
    )


def _cli_type(one: FieldDescription) -> Any:
    declared = one.declared
    if _is_tuple(declared):
        declared = list[str] if one.repeated else str
    elif typing.get_origin(declared) is typing.Literal:
        declared = str  # checked by the dataclass, whose message names the choices
    return declared | None if one.default in (MISSING, None) else declared


def _shown(one: FieldDescription) -> Any:
    if one.default is MISSING:
        return None
    if isinstance(one.default, tuple):
        return list(one.default) if one.repeated else ",".join(map(str, one.default))
    return one.default
