"""The text behind the colon of a file spec: a path, and options after a question mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote

from medseg_gym.errors import CaseError

SHARED_OPTIONS = ("skip_bad", "splits", "group", "modality")
"""Options that every file-backed source takes."""

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class FileSpec:
    """A parsed `PATH?name=value&name=value`.

    Values are percent-decoded, so `%26` is an ampersand. The path ends at the first question mark
    before which an existing file or folder is named (else at the very first), so a path may hold
    question marks, and so may a value.

    Args:
        name: Name of the layout, as "biomedparse".
        argument: The text behind the colon.
        path: The path, with `~` expanded.
        options: The options.
    """

    name: str
    argument: str
    path: Path
    options: dict[str, str]

    @classmethod
    def parse(cls, name: str, argument: str, known: Iterable[str] = ()) -> FileSpec:
        """Read the text behind the colon.

        Args:
            name: Name of the layout.
            argument: The text.
            known: Options that this layout takes besides `SHARED_OPTIONS`.

        Raises:
            CaseError: No path, or an option that is unknown, repeated or without a value.
        """
        known = (*SHARED_OPTIONS, *known)
        text, query = argument, ""
        try:
            if "?" in argument and not Path(argument).expanduser().exists():
                text, query = _divide(argument)
            path = Path(text).expanduser()
        except (OSError, ValueError, RuntimeError) as error:
            raise CaseError(f"{name}:{argument!r} is not a path: {error}") from error
        if not text.strip() or "\0" in text:
            raise CaseError(
                f"{name}:{argument!r} names no path; give {name}:PATH or {name}:PATH?OPTION=VALUE, "
                f"with options out of {', '.join(known)}"
            )
        options: dict[str, str] = {}
        for option, value in _pairs(name, argument, query):
            if option not in known or option in options:
                problem = "repeated" if option in options else "unknown"
                raise CaseError(
                    f"{name}:{argument}: {problem} option {option!r}; known: {', '.join(known)}"
                )
            options[option] = value
        return cls(name, argument, path, options)

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}"

    def text(self, option: str, default: str = "", choices: Iterable[str] = ()) -> str:
        """Value of an option.

        Raises:
            CaseError: It is none of the choices, where there are any.
        """
        value, choices = self.options.get(option, default), tuple(choices)
        if choices and value not in choices:
            raise self.wrong(option, "use one of " + ", ".join(choices))
        return value

    def flag(self, option: str) -> bool:
        """Whether an option is switched on: 1, true, yes, on.

        Raises:
            CaseError: It is neither on nor off.
        """
        value = self.options.get(option, "").lower()
        if value not in _TRUE + _FALSE:
            raise self.wrong(option, "use 1 or 0")
        return value in _TRUE

    def number(
        self, option: str, default: float, low: float = float("-inf"), high: float = float("inf")
    ) -> float:
        """Value of an option as a finite number.

        Raises:
            CaseError: It is not a number, or outside of [low, high].
        """
        if option not in self.options:
            return default
        try:
            value = float(self.options[option])
        except ValueError:
            raise self.wrong(option, "give a number") from None
        if not low <= value <= high or value in (float("inf"), float("-inf")):
            raise self.wrong(option, f"give a number from {low:g} to {high:g}")
        return value

    def wrong(self, option: str, way_out: str) -> CaseError:
        """Return an error about the value of an option, to be raised."""
        return CaseError(f"{self}: option {option}={self.options.get(option)!r}: {way_out}")

    def without(self, option: str) -> FileSpec:
        """Return the spec with an option unset."""
        return replace(self, options={k: v for k, v in self.options.items() if k != option})

    def adding(self, **options: str) -> str:
        """Return the spec as text with these options set."""
        given = {**self.options, **options}
        pairs = "&".join(f"{k}={quote(v, safe=',:/()*+.')}" for k, v in given.items())
        path = _divide(self.argument)[0] if self.options else self.argument
        return f"{self.name}:{path}?{pairs}"


def _divide(argument: str) -> tuple[str, str]:
    """Part path from options; there is a question mark."""
    marks = [at for at, character in enumerate(argument) if character == "?"]
    ends = (at for at in marks if Path(argument[:at]).expanduser().exists())
    end = next(ends, marks[0])
    return argument[:end], argument[end + 1 :]


def _pairs(name: str, argument: str, query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        # A plus stays a plus: regular expressions are full of them.
        return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise CaseError(
            f"{name}:{argument}: cannot read the options behind the question mark ({error}); "
            "write OPTION=VALUE with & between them"
        ) from error
