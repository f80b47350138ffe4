"""Weights & Biases, imported when a run asks for it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from medseg_agents.runs.trackers.protocol import Table
from medseg_agents.runs.trackers.run_identity import options_of, read_identity, write_identity
from medseg_gym.errors import MedSegError


class WandbTracker:
    """Shows a run at Weights & Biases; a resumed run goes on under the same id.

    Args:
        folder: Of the run; W&B's own files lie in `wandb/` there.
        step: That it goes on from.
        project: At W&B; "" as the environment says (`WANDB_PROJECT`), else "medseg-gym".
        entity: Team or user; "" is that of the login.
        name: Of the run; "" is the folder's.
        mode: "online", "offline" (`wandb sync` sends it later) or ""; then `WANDB_MODE` decides.

    Raises:
        MedSegError: wandb is not installed, or refuses the run: nobody is logged in, say.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        project: str = "",
        entity: str = "",
        name: str = "",
        mode: str = "",
    ) -> None:
        self._wandb: Any = _import()
        identity = read_identity(folder, "wandb") or secrets.token_hex(4)
        try:
            self._run: Any = self._wandb.init(
                dir=str(folder),
                project=project or None,
                entity=entity or None,
                name=name or folder.absolute().name,
                id=identity,
                resume="allow",
                mode=mode or None,
                config=options_of(folder),
                reinit="create_new",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        except self._wandb.errors.Error as error:
            raise MedSegError(
                f"W&B refuses the run: {error} Without a login or a network, log to "
                '"wandb?mode=offline"; `wandb sync` sends it later'
            ) from error
        write_identity(folder, "wandb", identity)
        # A step of our own: a resumed run plays steps again, which W&B's would refuse.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers."""
        self._run.log({**metrics, "step": step})

    def write_table(self, step: int, name: str, table: Table) -> None:
        """Log a `wandb.Table`, and each column of images as a strip too, which stays on the disk.

        Within a table images are kept as an artifact, which is not shown before it was sent.
        """
        wandb = self._wandb
        rows: list[list[Any]] = []
        strips: dict[str, list[Any]] = {}
        for number, row in enumerate(table.rows, 1):
            cells = []
            for column, cell in zip(table.columns, row, strict=True):
                if isinstance(cell, np.ndarray):
                    strip = strips.setdefault(f"{name}/{column}", [])
                    strip.append(wandb.Image(cell, caption=f"row {number}"))
                    cell = wandb.Image(cell)
                cells.append(cell)
            rows.append(cells)
        whole = wandb.Table(columns=list(table.columns), data=rows)
        self._run.log({name: whole, **strips, "step": step})

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log an image."""
        self._run.log({name: self._wandb.Image(image), "step": step})

    def write_alert(self, step: int, name: str, text: str) -> None:
        """Send an alert, which W&B mails to whoever wants it."""
        self._run.alert(title=name, text=f"step {step}: {text}")

    def close(self, failed: bool) -> None:
        """Send what is left and mark the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


def _import() -> Any:
    try:
        return import_module("wandb")
    except ImportError as error:
        raise MedSegError(
            'log_to names wandb, which is not installed: pip install "medseg-gym[wandb]"'
        ) from error
