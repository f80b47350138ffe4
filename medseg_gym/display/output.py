"""Ways in which a command shows its results: to people, as one JSON document, or not at all."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO


@dataclass(frozen=True)
class _Output:
    """Ways in which the running command shows its results.

    Args:
        document: Where the JSON document goes; None without `--json`.
        quiet: Show no tables, no messages and no progress.
    """

    document: TextIO | None = None
    quiet: bool = False


_PLAIN = _Output()
_OUTPUT: ContextVar[_Output] = ContextVar("output", default=_PLAIN)


@contextmanager
def showing(as_json: bool = False, quiet: bool = False) -> Iterator[None]:
    """Show results in here as the options `--json` and `--quiet` say.

    Args:
        as_json: What `print_result` is given goes to stdout, and no tables; what libraries print
            goes to stderr, as progress does.
        quiet: Nothing but that document, and errors, is shown at all.
    """
    stdout = sys.stdout
    token = _OUTPUT.set(_Output(stdout if as_json else None, quiet))
    try:
        if as_json:
            with redirect_stdout(sys.stderr):
                yield
        else:
            yield
    finally:
        _OUTPUT.reset(token)


def is_hidden(stderr: bool) -> bool:
    """Return whether the running command shows nothing of a kind to people.

    Args:
        stderr: Of progress and notices; else of results, which `--json` prints in their stead.
    """
    output = _OUTPUT.get()
    return output.quiet or (output.document is not None and not stderr)


def print_result(values: Mapping[str, Any]) -> None:
    """Print a command's results as JSON, if `--json` asks for it; once in a command.

    Args:
        values: Numbers, texts, truth values, paths, arrays, and lists and mappings of them; a
            number that is not finite becomes null.
    """
    document = _OUTPUT.get().document
    if document is not None:
        document.write(json.dumps(plain(values), allow_nan=False) + "\n")
        document.flush()


def plain(value: Any) -> Any:
    """Return a value as JSON knows it.

    Args:
        value: See `print_result`.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):  # NumPy and torch
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
