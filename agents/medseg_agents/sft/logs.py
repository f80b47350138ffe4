"""Callbacks of a supervised run: its log, and the mark of whole checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback

from medseg_agents.runs.divergence import TrainingDiverged
from medseg_agents.runs.log import RunLog
from medseg_agents.sft.checkpoints import WHOLE
from medseg_agents.sft.played_cases import PlayedCases


class WholeCheckpoints(TrainerCallback):
    """Marks a checkpoint once all of it is on the disk, so that a torn one is never used."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the mark."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            os.sync()
            (folder / WHOLE).touch()


class LogRun(TrainerCallback):
    """Keeps a `RunLog` of the trainer's metrics; a resumed run goes on in it.

    Args:
        out: Folder of the run.
        quiet: Shows nothing.
        log_to: See `RunLog`.
        play: Plays validation cases at every checkpoint, see `PlayedCases`; None plays none.
    """

    def __init__(
        self,
        out: Path,
        quiet: bool = False,
        log_to: Sequence[str] = ("tensorboard",),
        play: PlayedCases | None = None,
    ) -> None:
        self.out, self.quiet, self.log_to, self.play = out, quiet, log_to, play
        self.log: RunLog | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take up the rows of an earlier start of the run; later ones are played again."""
        if state.is_world_process_zero:
            console = Console(quiet=True) if self.quiet else None
            self.log = RunLog(
                self.out,
                state.max_steps,
                state.global_step,
                console,
                shown=("loss", "grad_norm", "val/dice"),
                log_to=self.log_to,
                lower="lr or max_grad_norm",
            )
            self.log.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.log is not None:
            self.log.advance(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Play the validation cases."""
        if self.log is not None and self.play is not None:
            metrics, sheet = self.play(kwargs["model"])
            self.log.write(state.global_step, metrics)
            self.log.write_sheet(state.global_step, sheet)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write one row."""
        if self.log is not None:
            numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float))}
            try:
                self.log.write(state.global_step, numbers)
            except TrainingDiverged:
                # The trainer ends by this error and calls nobody.
                self.log.__exit__(*sys.exc_info())
                raise

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the files."""
        if self.log is not None:
            self.log.__exit__(None, None, None)
            self.log = None
