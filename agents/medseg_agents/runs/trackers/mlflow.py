"""MLflow, imported when a run asks for it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg_agents.runs.trackers.protocol import Table, TrackerLost
from medseg_agents.runs.trackers.run_identity import options_of, read_identity, write_identity
from medseg_gym.errors import MedSegError

_LONGEST = 500
"""Characters of a parameter that every store of MLflow takes."""

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

_AT_START = {_RETRIES: "1", _TIMEOUT: "5"}
"""Before anything is trained a server that is down is said within ten seconds; MLflow would try it
for minutes.
"""

_LATER = {_RETRIES: "4", _TIMEOUT: "30"}
"""A server that trains nothing may be away for half a minute."""


class MLflowTracker:
    """Shows a run in MLflow; a resumed run goes on under the same id.

    Tables become artifacts: `NAME/step-000000010/table.html` beside the images that it shows.
    A server that is away when the run begins ends it; one that goes away later ends the tracking
    alone. MLflow's own variables say how long it is tried, where the user has set them.

    Args:
        folder: Of the run.
        step: That it goes on from.
        uri: Of the tracking store: a server, or "file:FOLDER"; "" as the environment says
            (`MLFLOW_TRACKING_URI`), else MLflow's own default.
        experiment: Its name; it is made where there is none.
        name: Of the run; "" is the folder's.

    Raises:
        MedSegError: mlflow is not installed, or the store does not answer.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        uri: str = "",
        experiment: str = "medseg-gym",
        name: str = "",
    ) -> None:
        mlflow, self._entities = _import("mlflow"), _import("mlflow.entities")
        self._errors: Any = (mlflow.exceptions.MlflowException, OSError)
        self._uri = uri or mlflow.get_tracking_uri()
        try:
            with _patience(_AT_START):
                self._client: Any = mlflow.MlflowClient(tracking_uri=self._uri)
                self._id = self._begin(folder, experiment, name)
        except self._errors as error:
            raise MedSegError(
                f"MLflow at {self._uri} does not take the run: {_line(error)}. Start that server, "
                'name another store (--log-to "mlflow?uri=sqlite:///runs.db", or '
                f"MLFLOW_TRACKING_URI), or set {_RETRIES} and {_TIMEOUT} to wait longer"
            ) from error

    def _begin(self, folder: Path, experiment: str, name: str) -> str:
        """Return the id of the run, a new one or the one that it had."""
        identity = read_identity(folder, "mlflow")
        if identity:
            self._client.update_run(identity, status="RUNNING")
            return identity
        known = self._client.get_experiment_by_name(experiment)
        where = known.experiment_id if known else self._client.create_experiment(experiment)
        run = self._client.create_run(where, run_name=name or folder.absolute().name)
        identity = str(run.info.run_id)
        write_identity(folder, "mlflow", identity)
        for option, value in options_of(folder).items():
            self._client.log_param(identity, option, str(value)[:_LONGEST])
        return identity

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn a store that does not answer into the end of the tracking."""
        try:
            with _patience(_LATER):
                yield
        except self._errors as error:
            raise TrackerLost(f"MLflow at {self._uri} does not answer: {_line(error)}") from error

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers in one call."""
        now = int(time.time() * 1000)
        rows = [self._entities.Metric(name, v, now, step) for name, v in metrics.items()]
        with self._asking():
            self._client.log_batch(self._id, metrics=rows)

    def write_table(self, step: int, name: str, table: Table) -> None:
        """Keep the table as a page with its images beside it."""
        place = f"{name}/step-{step:09d}"
        rows = []
        with self._asking():
            for number, row in enumerate(table.rows, 1):
                cells = []
                for column, cell in zip(table.columns, row, strict=True):
                    if isinstance(cell, np.ndarray):
                        file = f"{column}-{number:03d}.png"
                        self._client.log_image(self._id, Image.fromarray(cell), f"{place}/{file}")
                        cells.append(f'<img src="{file}">')
                    else:
                        cells.append(_text(cell))
                rows.append(cells)
            self._client.log_text(self._id, _page(table.columns, rows), f"{place}/table.html")

    def write_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Keep an image as a file."""
        file = f"{name}/step-{step:09d}.png"
        with self._asking():
            self._client.log_image(self._id, Image.fromarray(image), file)

    def write_alert(self, step: int, name: str, text: str) -> None:
        """Keep the newest alert of a name as a tag."""
        with self._asking():
            self._client.set_tag(self._id, f"alert.{name}", f"step {step}: {text}")

    def close(self, failed: bool) -> None:
        """Mark the run as finished or failed."""
        with self._asking():
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


@contextmanager
def _patience(limits: Mapping[str, str]) -> Iterator[None]:
    """Set MLflow's limits of trying a server, where the user has not, while the block runs."""
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _line(error: BaseException) -> str:
    """Reason of an error, in one line."""
    reason = getattr(error, "message", "") or str(error) or type(error).__name__
    return str(reason).strip().splitlines()[0][:300].rstrip(".")


def _text(value: object) -> str:
    from html import escape

    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _page(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    page = io.StringIO()
    page.write("<!doctype html><meta charset='utf-8'><table border='1'>")
    for tag, cells in (("th", list(columns)), *(("td", row) for row in rows)):
        page.write("<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n")
    page.write("</table>\n")
    return page.getvalue()


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MedSegError(
            'log_to names mlflow, which is not installed: pip install "medseg-gym[mlflow]"'
        ) from error
