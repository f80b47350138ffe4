"""Options of every run: how it goes on, and where it is shown while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from medseg_gym.options import Options, specs

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True)
class ExtendOptions(Options):
    """Going on after the end of a run."""

    topic: ClassVar[str] = "Going on"
    free: ClassVar[tuple[str, ...]] = ("extend", "extend_schedule")
    one_schedule: ClassVar[bool] = True  # along the whole run

    extend: int = 0
    """With --resume: so many steps or iterations, whichever the run counts, after the last of the
    length that it was begun with.
    """

    extend_schedule: Literal["hold", "stretch"] = "hold"
    """Schedules of an extended run: "hold" keeps the values of the end of its first
    length; "stretch" takes them to be of the whole length from here on, so that they jump back.
    """

    def total(self, length: N) -> N:
        """Return the length of the run with its extension.

        Args:
            length: That it was begun with.
        """
        return length + self.extend

    def scheduled(self, length: N) -> N:
        """Return the length that schedules go by.

        Args:
            length: That the run was begun with.
        """
        return self.total(length) if self.extend_schedule == "stretch" else length


@dataclass(frozen=True, kw_only=True)
class TrackingOptions(ExtendOptions):
    """Trackers that show a run's metrics, beside its own files."""

    topic: ClassVar[str] = "Logging"
    free: ClassVar[tuple[str, ...]] = ("log_to",)

    log_to: tuple[str, ...] = specs("medseg_agents.runs.trackers.registry:split", "tensorboard")
    """Trackers of metrics, tables and alerts: tensorboard, wandb, mlflow, with options as in
    `wandb?project=liver&mode=offline`; empty for none. `progress.jsonl`, `progress.csv` and
    `alerts.jsonl` are always written.
    """
