"""Tracker: the protocol of what shows a run while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from medseg_gym.errors import MedSegError


class TrackerLost(MedSegError):
    """A tracker does not answer any more; the run goes on without it."""


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of texts, numbers and images.

    Args:
        columns: Names.
        rows: Cells; an image is an array, H x W x 3 uint8.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Tracker(Protocol):
    """Shows a run; made by `factory(folder, step)` when the run's log is opened.

    Of a run that is resumed at `step`, rows of later steps come a second time.
    A method that raises `TrackerLost` ends the tracking, and not the run.
    """

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the numbers of one row of the log, all of them finite."""

    def write_table(self, step: int, name: str, table: Table) -> None:
        """Show a table, as the sampled conversations of an iteration."""

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Show an image, H x W x 3 uint8, as the contact sheet of validation episodes."""

    def write_alert(self, step: int, name: str, text: str) -> None:
        """Show that an alert began or ended."""

    def close(self, failed: bool) -> None:
        """Write what is left.

        Args:
            failed: The run ended with an error.
        """
