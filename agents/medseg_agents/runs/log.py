"""The log of a run: a live line, JSON lines, CSV and TensorBoard."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path, named_failures
from medseg_gym.storage.line_files import append_rows, read_rows, write_rows


class RunLog:
    """Writes `progress.jsonl`, `progress.csv` and `tensorboard/`, and shows a progress bar.

    Rows after the step that a run resumes from are dropped: it plays those steps again.

    Args:
        folder: Of the run.
        total: Steps of the whole run.
        step: Steps taken before.
        console: Where the bar goes; a console that is no terminal gets one line a row instead.
        shown: Metrics that stand beside the bar.
        unit: Name of a step.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        step: int = 0,
        console: Console | None = None,
        shown: tuple[str, ...] = ("return", "dice", "val/dice", "clone/loss"),
        unit: str = "steps",
    ) -> None:
        self.folder, self.total, self.shown, self.unit = folder, total, shown, unit
        self.console = console or make_console()
        self.file = folder / "progress.jsonl"
        self.rows = [row for row in read_progress(folder) if row["step"] <= step]
        write_rows(self.file, self.rows)
        before = self.rows[-1] if self.rows else {}
        self._began = time.perf_counter() - before.get("seconds", 0.0)
        self._cpu = time.process_time() - before.get("cpu_seconds", 0.0)
        self._last = time.perf_counter(), step
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        text = TextColumn("{task.description}")
        self._bar = Progress(
            text,
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=total, completed=step)

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        self._board.close()

    def advance(self, step: int) -> None:
        """Move the bar to a step that has no row."""
        self._bar.update(self._task, completed=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; "seconds" and "cpu_seconds" in it count earlier parts of a resumed run too.

        Args:
            step: Steps taken.
            values: Numbers; those that are not finite are left out.
        """
        now, (before, at) = time.perf_counter(), self._last
        if step > at:
            speed = (step - at) / max(now - before, 1e-9)
            self._last = now, step
            values = {"steps_per_second": speed, **values}
        finite = {k: float(v) for k, v in values.items() if math.isfinite(float(v))}
        row = {
            "step": step,
            "seconds": round(time.perf_counter() - self._began, 2),
            "cpu_seconds": round(time.process_time() - self._cpu, 2),
            **finite,
        }
        self.rows.append(row)
        append_rows(self.file, [row])
        with named_failures(self.folder / "tensorboard"):
            for key, value in finite.items():
                self._board.add_scalar(key, value, step)
        write_csv(self.rows, self.folder / "progress.csv")
        self._show(step, finite)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        texts = [f"{step}/{self.total} {self.unit}"]
        for key in self.shown:
            if key in values:
                texts.append(f"{key} {values[key]:.3f}")
        if "steps_per_second" in values:
            texts.append(f"{values['steps_per_second']:.3g} {self.unit}/s")
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, description=", ".join(texts))
        else:
            self.console.print(", ".join(texts), highlight=False)


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's log, without a last line that a kill tore.

    Raises:
        MedSegError: A line is damaged.
    """
    file = folder / "progress.jsonl"
    rows = read_rows(file, way_out="remove that line to go on without it")
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("step"), int):
            raise MedSegError(f"{file}: row {number} has no step; remove that line")
    return rows


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows with whatever columns they have."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path, durable=False) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
