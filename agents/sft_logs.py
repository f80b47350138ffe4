"""What a supervised run shows and writes while it runs."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback


class WholeCheckpoints(TrainerCallback):
    """Marks a checkpoint once all of it is on the disk, so that a torn one is never used."""

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the mark."""
        from agents.sft import WHOLE

        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            os.sync()
            (folder / WHOLE).touch()


class LogFiles(TrainerCallback):
    """Writes `log.jsonl`, `log.csv` and TensorBoard events; a resumed run goes on in them.

    Args:
        out: Folder of the run.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[dict[str, Any]] = []
        self.board: Any = None
        self.began = time.perf_counter()
        self.cpu = time.process_time()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Take up the rows of an earlier part of the run; later ones are played again."""
        from torch.utils.tensorboard import SummaryWriter

        if not state.is_world_process_zero:
            return
        file = self.out / "log.jsonl"
        if file.exists():
            lines = file.read_text().split("\n")[:-1]  # what follows the last line end was torn
            self.rows = [r for r in map(json.loads, lines) if r["step"] <= state.global_step]
        spent = self.rows[-1] if self.rows else {"seconds": 0.0, "cpu_seconds": 0.0}
        self.began = time.perf_counter() - spent["seconds"]
        self.cpu = time.process_time() - spent["cpu_seconds"]
        file.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=state.global_step + 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Write one line."""
        if not state.is_world_process_zero or self.board is None:
            return
        numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float))}
        row = {
            "step": state.global_step,
            "seconds": round(time.perf_counter() - self.began, 1),
            "cpu_seconds": round(time.process_time() - self.cpu, 1),
            **numbers,
        }
        self.rows.append(row)
        with (self.out / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with (self.out / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        for name, value in numbers.items():
            self.board.add_scalar(name, value, state.global_step)
        self.board.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Close the events file."""
        if self.board is not None:
            self.board.close()


class ProgressBar(TrainerCallback):
    """One line with steps, loss and the time that is left."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Show the bar."""
        self.progress.start()
        self.bar = self.progress.add_task("sft", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Move it."""
        self.progress.update(self.bar, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Show the loss."""
        if logs and "loss" in logs and self.bar is not None:
            self.progress.update(self.bar, description=f"sft, loss {float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Leave the line as it is."""
        self.progress.stop()
