"""Options of every run: where it is shown while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.options import Options, specs


@dataclass(frozen=True, kw_only=True)
class TrackingOptions(Options):
    """Trackers that show a run's metrics, beside its own files."""

    topic: ClassVar[str] = "Logging"

    log_to: tuple[str, ...] = specs("medseg_agents.runs.trackers.registry:split", "tensorboard")
    """Trackers of metrics, tables and alerts: tensorboard, wandb, mlflow, with options as in
    `wandb?project=liver&mode=offline`; empty for none. `progress.jsonl`, `progress.csv` and
    `alerts.jsonl` are always written.
    """
