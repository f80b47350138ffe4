"""Progress bars of commands: what is done, how long it took, and how long the rest will take."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from medseg_gym.display.terminal import make_console

_PERIOD = 600.0
"""Seconds over which the speed is taken: a volume or a batch of conversations may take minutes,
and rich forgets steps that are older than 30 seconds."""


class _Bars(Progress):
    """Bars of which none is left on the screen where an error came before anything was done."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and not any(task.completed for task in self.tasks):
            self.live.transient = True
            self.live.stop()
        else:
            super().__exit__(kind, error, trace)


def make_progress() -> Progress:
    """Make a progress bar on stderr, with the time that is left; `--quiet` shows none."""
    return _Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=make_console(stderr=True),
        speed_estimate_period=_PERIOD,
        # What is printed meanwhile goes above the bar, but never from a file or pipe to the screen.
        redirect_stdout=sys.stdout.isatty(),
    )
