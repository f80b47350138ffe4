"""The text behind the colon of a file spec: a path, and options after a question mark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from medseg_gym.errors import CaseError, nearest
from medseg_gym.option_values import convert
from medseg_gym.options import Options, describe_fields
from medseg_gym.specs import divide_argument, read_options, write_options

F = TypeVar("F", bound="FileOptions")


class WrongOption(ValueError):
    """A value that an option cannot have.

    Args:
        option: Its name.
        way_out: A value that it can have.
    """

    def __init__(self, option: str, way_out: str) -> None:
        super().__init__(f"{option}: {way_out}")
        self.option, self.way_out = option, way_out


@dataclass(frozen=True, kw_only=True)
class FileOptions(Options):
    """Options of every file-backed source; a format's own are a subclass."""

    topic: ClassVar[str] = "Files"

    skip_bad: bool = False
    """Leave defective cases out instead of refusing the data set."""

    splits: str = ""
    """Shares of train, val and test by which groups are dealt where the data name no split, as
    "80,10,10"."""

    group: str = ""
    """Regular expression that tells the group (patient, volume) in a group's name: its first part
    in brackets, or all that it matches."""

    modality: str = ""
    """Modality of all cases, instead of what the files say."""


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
    def parse(cls, name: str, argument: str, declared: type[FileOptions] = FileOptions) -> FileSpec:
        """Read the text behind the colon.

        Args:
            name: Name of the format.
            argument: The text.
            declared: Options of the format.

        Raises:
            CaseError: No path, or an option that is unknown, repeated or has a value that it cannot
                have.
        """
        known = tuple(describe_fields(declared))
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
        spec = cls(name, argument, path, options)
        spec.read(declared)
        return spec

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}"

    def read(self, declared: type[F]) -> F:
        """Return the options as a dataclass has them; those that it does not have are left out.

        Args:
            declared: The dataclass.

        Raises:
            CaseError: An option has a value that it cannot have.
        """
        values: dict[str, Any] = {}
        for option, one in describe_fields(declared).items():
            if option in self.options:
                try:
                    values[option] = convert(self.options[option], one.declared)
                except ValueError as error:
                    raise self.wrong(option, str(error)) from None
        try:
            return declared(**values)
        except WrongOption as error:
            raise self.wrong(error.option, error.way_out) from error

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
