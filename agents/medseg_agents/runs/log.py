"""The log of a run: live lines, JSON lines, CSV, trackers and alerts."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from medseg_agents.runs.alerts import active_alerts, add_row, series_of
from medseg_agents.runs.divergence import check_losses
from medseg_agents.runs.progress_bar import ProgressBar
from medseg_agents.runs.trackers import Table, Tracker, TrackerLost, make_trackers
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path, atomic_write
from medseg_gym.storage.line_files import append_rows, read_rows, write_rows

ALERTS_FILE = "alerts.jsonl"
SHEET = "val/episodes"


class RunLog:
    """Writes `progress.jsonl`, `progress.csv` and `alerts.jsonl`, and shows a progress bar.

    Rows after the step that a run resumes from are dropped: it plays those steps again.

    Args:
        folder: Of the run.
        total: Steps of the whole run.
        step: Steps taken before.
        console: Where the bar and the alerts go, stderr by default; a console that is no terminal
            gets one line a row instead of the bar.
        shown: Metrics that stand beside the bar.
        unit: Name of a step.
        log_to: Specs of trackers, see `medseg_agents.runs.trackers`.
        lower: Options to lower when a loss is not finite, for the error.

    Raises:
        MedSegError: A tracker is unknown, not installed or does not answer. One that stops
            answering later is left out, with a warning.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        step: int = 0,
        console: Console | None = None,
        shown: tuple[str, ...] = ("return", "dice", "val/dice", "clone/loss"),
        unit: str = "steps",
        log_to: Sequence[str] = ("tensorboard",),
        lower: str = "learning_rate or max_grad_norm",
    ) -> None:
        self.folder, self.total, self.unit, self.lower = folder, total, unit, lower
        self.console = console or make_console(stderr=True)
        self.file, self.alerts_file = folder / "progress.jsonl", folder / ALERTS_FILE
        self.rows = [row for row in read_progress(folder) if row["step"] <= step]
        write_rows(self.file, self.rows)
        alerts = [row for row in read_rows(self.alerts_file) if row.get("step", 0) <= step]
        if self.alerts_file.exists():
            write_rows(self.alerts_file, alerts)
        self._series = series_of(self.rows)
        self._active = active_alerts(self._series)
        before = self.rows[-1] if self.rows else {}
        self._began = time.perf_counter() - before.get("seconds", 0.0)
        self._cpu = time.process_time() - before.get("cpu_seconds", 0.0)
        self._last = time.perf_counter(), step
        self._trackers = make_trackers(log_to, folder, step)
        self._bar = ProgressBar(self.console, total, step, unit, shown)

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
        self._track(self._last[1], lambda tracker: tracker.close(failed=kind is not None))

    def advance(self, step: int) -> None:
        """Move the bar to a step that has no row."""
        self._bar.move(step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; "seconds" and "cpu_seconds" in it count earlier parts of a resumed run too.

        Args:
            step: Steps taken.
            values: Numbers; those that are not finite are left out.

        Raises:
            TrainingDiverged: A loss or a gradient norm is not finite; the row is written before.
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
        self._track(step, lambda tracker: tracker.write_metrics(step, finite))
        write_csv(self.rows, self.folder / "progress.csv")
        self._bar.show(step, finite)
        self._alert(step, values)
        check_losses(values, f"{self.folder}: {self.unit} {step} of {self.total}", self.lower)

    def write_table(self, step: int, name: str, table: Table) -> None:
        """Give a table to the trackers.

        Args:
            step: Steps taken.
            name: Of the table.
            table: Rows of texts, numbers and images.
        """
        self._track(step, lambda tracker: tracker.write_table(step, name, table))

    def write_sheet(self, step: int, png: bytes) -> None:
        """Keep a contact sheet of validation episodes under `samples/`, and show it.

        Args:
            step: Steps taken.
            png: The sheet; empty for none.
        """
        if not png:
            return
        name = f"{self.unit.removesuffix('s')}-{step:05d}.png"
        atomic_write(self.folder / "samples" / name, png)
        with Image.open(io.BytesIO(png)) as opened:
            image = np.asarray(opened.convert("RGB"))
        self._track(step, lambda tracker: tracker.write_image(step, SHEET, image))

    def _alert(self, step: int, values: Mapping[str, float]) -> None:
        """Say which alerts begin and end with this row."""
        add_row(self._series, values)
        active = active_alerts(self._series)
        changes = [(name, "began", text) for name, text in active.items()]
        changes = [one for one in changes if one[0] not in self._active]
        ended = [(name, "ended", text) for name, text in self._active.items()]
        changes += [one for one in ended if one[0] not in active]
        self._active = active
        for name, event, text in changes:
            row = {"step": step, "alert": name, "event": event, "text": text}
            append_rows(self.alerts_file, [row])
            message = f"alert: {text}" if event == "began" else f"alert {name} has ended"
            style = "magenta" if event == "began" else "green"
            self.console.print(f"{self.unit} {step}: {message}", style=style, highlight=False)
            self._show_alert(step, name, message)

    def _show_alert(self, step: int, name: str, text: str) -> None:
        self._track(step, lambda tracker: tracker.write_alert(step, name, text))

    def _track(self, step: int, write: Callable[[Tracker], None]) -> None:
        """Tell every tracker something; one that does not answer is told nothing more."""
        for tracker in list(self._trackers):
            try:
                write(tracker)
            except TrackerLost as lost:
                self._trackers.remove(tracker)
                words = (
                    f"{self.unit} {step}: {lost}; the run goes on without it, {self.file} has all"
                )
                self.console.print(words, style="magenta", markup=False, highlight=False)


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
    with (
        atomic_path(path, durable=False) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
