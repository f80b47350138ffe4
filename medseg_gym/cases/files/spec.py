"""The text behind the colon of a file spec: a path, and options after a question mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medseg_gym.errors import CaseError, nearest
from medseg_gym.option_values import FALSE, TRUE
from medseg_gym.registry import divide_argument, read_options, write_options

SHARED_OPTIONS = ("skip_bad", "splits", "group", "modality")
"""Options that every file-backed source takes."""


@dataclass(frozen=True)
class FileSpec:
    """A parsed `PATH?name=value&name=value`.

    See `medseg_gym.registry.divide_argument` and `read_options`: paths and values may hold question
    marks, and values are percent-decoded.

    Args:
        name: Name of the format, as "biomedparse".
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
            name: Name of the format.
            argument: The text.
            known: Options that this format takes besides `SHARED_OPTIONS`.

        Raises:
            CaseError: No path, or an option that is unknown, repeated or without a value.
        """
        known = (*SHARED_OPTIONS, *known)
        text, query = divide_argument(argument)
        try:
            path = Path(text).expanduser()
        except (OSError, ValueError, RuntimeError) as error:
            raise CaseError(f"{name}:{argument!r} is not a path: {error}") from error
        if not text.strip() or "\0" in text:
            raise CaseError(
                f"{name}:{argument!r} names no path; give {name}:PATH or {name}:PATH?OPTION=VALUE, "
                f"with options out of {', '.join(known)}"
            )
        options = read_options(f"{name}:{argument}", query, CaseError)
        for option in options:
            if option not in known:
                raise CaseError(
                    f"{name}:{argument}: unknown option {option!r}{nearest(option, known)}; known: "
                    f"{', '.join(known)}"
                )
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
        if value not in (*TRUE, *FALSE, ""):
            raise self.wrong(option, "use 1 or 0")
        return value in TRUE

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
        path = divide_argument(self.argument)[0]
        return f"{self.name}:{path}?{write_options(given)}"
