"""The options `--json` and `--quiet`, which commands get in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from medseg_gym.display.output import showing

_JSON = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the results as one JSON document instead of tables; progress is on stderr.",
        rich_help_panel="Output",
    ),
]
_QUIET = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Show no tables, messages or progress; files are written, and errors are shown.",
        rich_help_panel="Output",
    ),
]


def with_output(command: Callable[..., None], results: bool = True) -> Callable[..., None]:
    """Give a command the options `--quiet` and, where it has results, `--json`.

    Args:
        command: For `typer.Typer.command`; with results it calls `print_result` once.
        results: Whether it has any; a server has none.
    """
    own = inspect.signature(command, eval_str=True)
    added = {"as_json": _JSON, "quiet": _QUIET} if results else {"quiet": _QUIET}
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in added.items()
    ]

    @wraps(command)
    def run(*args: Any, as_json: bool = False, quiet: bool = False, **values: Any) -> None:
        with showing(as_json, quiet):
            command(*args, **values)

    signature = own.replace(parameters=[*own.parameters.values(), *keywords])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in signature.parameters.items()}
    return run
