"""The live lines of a run: a bar with the time that is left, and the newest metrics below it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

_NEWEST = 20
"""Rows over which the speed is taken: iterations may grow longer as a policy learns."""


class ProgressBar(Progress):
    """Shows progress; a console that is no terminal gets one line a row instead.

    rich's own estimate forgets steps that are older than 30 seconds, and an iteration may take
    minutes, so the time that is left is computed here.

    Args:
        console: Where it goes.
        total: Steps of the whole run.
        step: Steps taken before.
        unit: Name of a step.
        shown: Metrics that are shown, where a row has them.
    """

    def __init__(
        self, console: Console, total: int, step: int, unit: str, shown: tuple[str, ...]
    ) -> None:
        self.total, self.unit, self.shown = total, unit, shown
        self._times: deque[tuple[float, int]] = deque([(time.perf_counter(), step)], _NEWEST)
        self._newest: dict[str, float] = {}
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self.add_task(self._counted(step), total=total, completed=step, left="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, and the newest metrics on a line of their own."""
        yield from super().get_renderables()
        if self._newest:
            yield Text(self._metrics(), overflow="ellipsis", no_wrap=True)

    def move(self, step: int) -> None:
        """Move the bar."""
        before = self._times[-1][1]
        if step > before:
            self._times.append((time.perf_counter(), step))
        self.update(
            self._task, completed=step, description=self._counted(step), left=self._left(step)
        )

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Move the bar and show the metrics of a row."""
        self.move(step)
        own = {name: metrics[name] for name in self.shown if name in metrics}
        if self.console.is_terminal:
            self._newest |= own  # those of the newest validation stay
            return
        self._newest = own
        texts = [self._counted(step), self._metrics()]
        if "steps_per_second" in metrics:
            texts.append(f"{metrics['steps_per_second']:.3g} {self.unit}/s")
            texts.append(self._left(step))
        self.console.print(", ".join(filter(None, texts)), highlight=False)

    def _counted(self, step: int) -> str:
        return f"{step}/{self.total} {self.unit}"

    def _metrics(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in self._newest.items())

    def _left(self, step: int) -> str:
        """Time until the end at the speed of the newest rows, "" where it is not known."""
        (began, first), (ended, last) = self._times[0], self._times[-1]
        if last <= first or step >= self.total:
            return ""
        seconds = (self.total - step) * (ended - began) / (last - first)
        return f"ETA {timedelta(seconds=round(seconds))}"
