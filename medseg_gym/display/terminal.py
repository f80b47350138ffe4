"""Output of the command line: tables that lose nothing, a console that outlives its pipe."""

from __future__ import annotations

import copy
import os
import sys
from dataclasses import replace
from typing import Any

import rich.console
import rich.table
from rich.console import ConsoleOptions, RenderResult
from rich.default_styles import DEFAULT_STYLES
from rich.measure import Measurement
from rich.theme import Theme

from medseg_gym.display.output import is_hidden

_PIPE_WIDTH = 180
_PALE = ("black", "blue", "yellow", "white")
"""Colours that, as the bright ones, cannot be read on a dark or on a light background."""
_THEME = Theme(
    {
        name: style.without_color
        for name, style in DEFAULT_STYLES.items()
        if style.color and (style.color.name in _PALE or style.color.name.startswith("bright_"))
    }
)
"""rich's own styles of numbers, paths and bars, without those colours."""
_WRAPPED = 16  # characters that a column of words gets at least


class Console(rich.console.Console):
    """A console whose reader may go away (`| head`): the program goes on, and writes its files.

    Args:
        **options: As in rich, but that `:100:` in a spec stays what it is and becomes no picture,
            and that styles have no colour which some backgrounds swallow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"emoji": False, "theme": _THEME, **options})

    def on_broken_pipe(self) -> None:
        """Print nothing more; rich itself would end the program."""
        self.quiet = True
        drop_output()


def make_console(stderr: bool = False) -> Console:
    """Make the console of a command's tables and messages; `--quiet` and `--json` hide them.

    A file or a pipe has no width to respect.

    Args:
        stderr: For what is no result, as a progress bar; `--quiet` alone hides it.
    """
    quiet = is_hidden(stderr)
    console = Console(stderr=stderr, quiet=quiet)
    return (
        console if console.is_terminal else Console(stderr=stderr, quiet=quiet, width=_PIPE_WIDTH)
    )


def drop_output() -> None:
    """Send what is still written to stdout nowhere, after its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class Table(rich.table.Table):
    """A table that goes on below where it is too wide, its first columns repeated.

    rich drops the columns that do not fit.

    Args:
        *headers: As in rich.
        keys: Columns that say what a row is about, repeated in every part.
        **more: As in rich.
    """

    def __init__(self, *headers: Any, keys: int = 1, **options: Any) -> None:
        super().__init__(*headers, **options)
        self.keys = keys

    def __rich_console__(
        self, console: rich.console.Console, options: ConsoleOptions
    ) -> RenderResult:
        """Render the parts one below another."""
        widths = [self._width(column, console, options) for column in self.columns]
        parts = self._parts(widths, options.max_width)
        for number, members in enumerate(parts):
            plain = copy.copy(self)
            plain.columns = [replace(self.columns[n], _index=i) for i, n in enumerate(members)]
            if self._total([widths[n] for n in members]) > options.max_width:
                for column in plain.columns:  # folded is better than cut
                    column.no_wrap, column.overflow = False, "fold"
            plain.title = self.title if number == 0 else None
            plain.caption = self.caption if number == len(parts) - 1 else None
            yield from rich.table.Table.__rich_console__(plain, console, options)

    def _parts(self, widths: list[int], limit: int) -> list[list[int]]:
        """Columns of each part."""
        keys = list(range(min(self.keys, len(widths))))
        parts = [list(keys)]
        for number in range(len(keys), len(widths)):
            wider = [*parts[-1], number]
            if len(wider) > len(keys) + 1 and self._total([widths[n] for n in wider]) > limit:
                parts.append([*keys, number])
            else:
                parts[-1].append(number)
        return parts

    def _total(self, widths: list[int]) -> int:
        _, right, _, left = self.padding
        return sum(widths) + len(widths) * (left + right + 1) + 1

    def _width(
        self, column: rich.table.Column, console: rich.console.Console, options: ConsoleOptions
    ) -> int:
        """Return the width of a column; one that may be wrapped needs room for some words only."""
        endless = options.update(max_width=1_000_000)
        cells = [column.header, *column.cells]
        measurements = [Measurement.get(console, endless, cell) for cell in cells]
        longest = max(one.maximum for one in measurements)
        if column.no_wrap:
            return longest
        return min(longest, max(_WRAPPED, *(one.minimum for one in measurements)))
