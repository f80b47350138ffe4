"""Specs: `KIND[:ARGUMENT][?key=value&key=value]`, the one grammar in which things are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl, quote

from medseg_gym.errors import MedSegError

_KEY = re.compile(r"[\w-]+=")


@dataclass(frozen=True)
class Spec:
    """A spec, divided into its parts.

    Args:
        text: As it was written.
        kind: Before the first colon or question mark; for a user's own object the part that names
            it, as "package.module:Name" or "path/file.py:Name".
        rest: Behind the kind: argument and options as they were written. It begins with a question
            mark where there is no argument.
        error: Raised where the options cannot be read.
    """

    text: str
    kind: str
    rest: str = ""
    error: type[MedSegError] = MedSegError

    @cached_property
    def argument(self) -> str:
        """Behind the kind's colon, "" where there is none; a path may hold question marks."""
        return divide_argument(self.rest)[0]

    @cached_property
    def options(self) -> Mapping[str, str]:
        """Behind the question mark, values percent-decoded.

        Raises:
            MedSegError: They cannot be read, or one is given twice.
        """
        return read_options(self.text, divide_argument(self.rest)[1], self.error)

    @property
    def is_own(self) -> bool:
        """True if the spec names an object of a user's module or file."""
        return ":" in self.kind

    def __str__(self) -> str:
        return self.text


def split_specs(text: str, begins_spec: Callable[[str], bool]) -> list[str]:
    """Split a list of specs at the commas that end one.

    A comma behind a colon or a question mark may belong to a value, as in "a,b?window=0,1,c". It
    ends a spec only if a spec begins behind it. A value that looks like one is written with `%2C`.

    Args:
        text: The list.
        begins_spec: Whether a text begins with something that begins a spec.

    Returns:
        The specs, without blanks round them; empty ones are left out.
    """
    specs: list[str] = []
    for piece in text.split(","):
        if specs and re.search("[:?]", specs[-1]) and not begins_spec(piece.strip()):
            specs[-1] += f",{piece}"
        else:
            specs.append(piece)
    return [spec.strip() for spec in specs if spec.strip()]


def read_options(text: str, query: str, error: type[MedSegError] = MedSegError) -> dict[str, str]:
    """Read `key=value&key=value`; a plus stays a plus, `%26` is an ampersand.

    Raises:
        MedSegError: Not of that form, or a key that comes twice.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True)
    except ValueError as problem:
        raise error(
            f"{text}: cannot read the options behind the question mark ({problem}); "
            "write key=value with & between them"
        ) from problem
    options: dict[str, str] = {}
    for key, value in pairs:
        if key in options:
            raise error(f"{text}: repeated option {key!r}")
        options[key] = value
    return options


def write_options(options: Mapping[str, str]) -> str:
    """Return options as the text that `read_options` reads."""
    return "&".join(f"{key}={quote(value, safe=',:/()*+.')}" for key, value in options.items())


def divide_argument(text: str) -> tuple[str, str]:
    """Divide an argument from the options behind it.

    The argument ends at the first question mark before which an existing file or folder is named,
    else at the first one with `key=` behind it, so paths may hold question marks, and so may a
    value.

    Returns:
        Argument and query, without the question mark.
    """
    if text.startswith("?"):
        return "", text[1:]
    marks = [at for at, character in enumerate(text) if character == "?"]
    if not marks or names_file(text):
        return text, ""
    with_key = (at for at in marks if _KEY.match(text, at + 1))
    end = next((at for at in marks if names_file(text[:at])), next(with_key, marks[0]))
    return text[:end], text[end + 1 :]


def names_file(text: str) -> bool:
    """Return whether a text is the path of an existing file or folder."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
