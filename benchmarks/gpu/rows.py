"""Rows of the GPU program's one table, kept as soon as they are known: a kill loses none."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym.display.terminal import Table, make_console

PASSED, MISSED, MEASURED = "passed", "missed", "measured"
SKIPPED, FAILED, LATE = "skipped", "failed", "out of time"
VERDICTS = (PASSED, MISSED, MEASURED, FAILED, LATE, SKIPPED)
NEEDS_CUDA = "needs CUDA"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    part: str
    """Name of the part of the program."""

    what: str
    """Quantity that was measured or compared."""

    verdict: str
    """`PASSED`, `MISSED` (a floor), `MEASURED` (no floor), `SKIPPED`, `FAILED` or `LATE`."""

    value: str = ""
    """The result in words, or the reason why there is none."""

    floor: str = ""
    """Limit of the result."""

    numbers: dict[str, Any] = field(default_factory=dict)
    """Everything else that was measured, as JSON knows it."""


@dataclass(frozen=True)
class Job:
    """Request to a part.

    Args:
        part: Its name.
        device: "cuda" or "cpu".
        small: Small models and few environments: only to see that it runs; floors mean nothing.
        ends: On the clock of `time.monotonic`, when the part should have ended.
        file: Rows go there, one JSON a line.
    """

    part: str
    device: str
    small: bool
    ends: float
    file: Path

    @property
    def cuda(self) -> bool:
        """True on a GPU."""
        return self.device == "cuda"

    def add(self, what: str, verdict: str, value: str = "", **rest: Any) -> Row:
        """Keep a row and show it.

        Args:
            what: See `Row`.
            verdict: See `Row`.
            value: See `Row`.
            **rest: `floor` and `numbers`.
        """
        row = Row(part=self.part, what=what, verdict=verdict, value=value, **rest)
        keep(self.file, row)
        return row

    def compare(
        self, what: str, value: float, limit: float, *, at_most: bool, shown: str, **numbers: Any
    ) -> Row:
        """Keep a row about a floor, which a small run or one without a GPU is not held to.

        Args:
            what: See `Row`.
            value: Compared; not a number is a floor missed.
            limit: Least value, or the greatest one.
            at_most: Which of the two.
            shown: The value in words.
            **numbers: See `Row`.
        """
        held = value <= limit if at_most else value >= limit
        verdict = (PASSED if held else MISSED) if self.cuda and not self.small else MEASURED
        floor = f"{'<=' if at_most else '>='} {limit:g}"
        return self.add(
            what, verdict, shown, floor=floor, numbers={"value": value, "limit": limit, **numbers}
        )

    def late(self, what: str) -> bool:
        """Return whether the part's time is used up; then what is left out has its row."""
        if time.monotonic() < self.ends:
            return False
        self.add(what, LATE, "not begun")
        return True


def keep(file: Path, row: Row) -> None:
    """Append a row to a file, and show it."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(asdict(row)) + "\n")
    result = f": {row.value}" if row.value else ""
    floor = f" ({row.floor})" if row.floor else ""
    print(f"{row.part}: {row.what}{result}{floor}: {row.verdict}", flush=True)


def read(file: Path) -> list[Row]:
    """Rows of a file, in order; none where it is not there."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    # A process killed as it wrote leaves half a line.
    return [Row(**json.loads(line)) for line in lines if line.endswith("\n")]


def as_table(rows: Iterable[Row], title: str) -> Table:
    """One line a row."""
    table = Table(title=title)
    for header in ("part", "what", "result", "floor", "verdict"):
        table.add_column(header)
    previous = ""
    for row in rows:
        if previous and row.part != previous:
            table.add_section()
        cells = (row.part if row.part != previous else "", row.what, row.value, row.floor)
        table.add_row(*cells, row.verdict)
        previous = row.part
    return table


def show(rows: Sequence[Row], machine: str) -> None:
    """Print the table, and how many rows had which verdict."""
    verdicts = [row.verdict for row in rows]
    counted = [(verdicts.count(name), name) for name in VERDICTS if name in verdicts]
    console = make_console()
    console.print(as_table(rows, machine))
    console.print(", ".join(f"{count} {name}" for count, name in counted))


def is_fine(rows: Iterable[Row]) -> bool:
    """Return whether nothing failed, ran out of time or missed its floor."""
    return not any(row.verdict in (FAILED, LATE, MISSED) for row in rows)
