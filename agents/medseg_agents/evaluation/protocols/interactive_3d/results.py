"""Files of a run: one record a case, predictions, clicks, the table and its summary."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_agents.evaluation.protocols.interactive_3d.iterations import CLICKS, Played
from medseg_agents.evaluation.protocols.interactive_3d.scores import (
    COLUMNS,
    LOW_DSC,
    SECONDS_PER_CLASS,
)
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path, atomic_write

TABLE = "metrics.csv"
_MEANS = ("DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final", "TotalRunningTime")


class ProtocolFolder:
    """Folder of a run; every file in it is whole, and a case is done once its record is there.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def start(self, settings: Mapping[str, Any], resume: bool) -> None:
        """Begin a run or go on with it.

        Args:
            settings: What decides the numbers.
            resume: Go on with a run that is there.

        Raises:
            MedSegError: There is a run and `resume` is off, it has other settings, or the folder
                holds a run of another kind.
        """
        file = self.path / "settings.json"
        if (self.path / "records.jsonl").exists():
            raise MedSegError(f"{self.path} holds another kind of run; give another folder")
        text = json.dumps(dict(settings), indent=1)
        if file.exists():
            if not resume:
                raise MedSegError(f"{self.path} holds a run already; another folder, or --resume")
            before = json.loads(file.read_text(encoding="utf-8"))
            now = json.loads(text)
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    raise MedSegError(
                        f"{self.path} was begun with {name} {before.get(name)!r}, not "
                        f"{now.get(name)!r}; give another folder"
                    )
        else:
            atomic_write(file, text)

    def record(self, case: str) -> dict[str, Any] | None:
        """Return the record of a case that is done, else None.

        Raises:
            MedSegError: It cannot be read.
        """
        file = self.path / "cases" / f"{case}.json"
        try:
            record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise MedSegError(
                f"{file} cannot be read: {error}; remove it to play it again"
            ) from None
        return record

    def keep_prediction(self, case: str, iteration: int, labels: np.ndarray) -> None:
        """Write `predictions/CASE_iN.npz`: `segs`, (D, H, W); iteration 0 is the box."""
        narrow = np.uint8 if not labels.size or labels.max() <= 255 else np.uint16
        with atomic_path(self.path / "predictions" / f"{case}_i{iteration}.npz") as unfinished:
            with unfinished.open("wb") as file:
                np.savez_compressed(file, segs=labels.astype(narrow))

    def keep_clicks(self, case: str, played: Played) -> None:
        """Write `clicks/CASE.json`: label values, boxes, and clicks (slice, row, column)."""
        content = {
            "classes": played.classes,
            "boxes": None if played.boxes is None else [box.as_dict() for box in played.boxes],
            "clicks": [one.as_dict() for one in played.clicks],
            "clicks_order": [one.order for one in played.clicks],
        }
        atomic_write(self.path / "clicks" / f"{case}.json", json.dumps(content, indent=1))

    def keep_record(self, case: str, record: Mapping[str, Any]) -> None:
        """Write the record of a case; after everything else of it."""
        atomic_write(self.path / "cases" / f"{case}.json", json.dumps(dict(record), indent=1))

    def write_table(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.csv`, the challenge's table."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow(record["row"])
        atomic_write(self.path / TABLE, text.getvalue())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`."""
        atomic_write(self.path / "summary.json", json.dumps(dict(summary), indent=1))


def summarise(records: Sequence[Mapping[str, Any]], left_out: Mapping[str, int]) -> dict[str, Any]:
    """Return means over the cases and counts of what is to be known about them.

    Args:
        records: Of the cases, at least one.
        left_out: Counts of what was not played, by reason.
    """
    rows = [record["row"] for record in records]
    without = sum(record["boxes"] == "none" for record in records)
    made = sum(record["boxes"] == "made" for record in records)
    late = low = 0
    for row, record in zip(rows, records, strict=True):
        first = 2 if record["boxes"] == "none" else 1
        for number in range(first, CLICKS + 2):
            late += row[f"RunningTime_{number}"] > row["runtime_upperbound"]
            low += row[f"DSC_{number}"] <= LOW_DSC
    notes = {
        "cases without a box, whose first iteration counts as 0": without,
        "cases whose boxes were made by the challenge's rule": made,
        f"iterations over {SECONDS_PER_CLASS} s a class; the challenge would count them as 0": late,
        f"iterations with a mean DSC up to {LOW_DSC}, whose NSD counts as 0": low,
        "synthetic cases": sum(record["synthetic"] for record in records),
    }
    return {
        "cases": len(rows),
        "means": {name: math.fsum(row[name] for row in rows) / len(rows) for name in _MEANS},
        "left_out": dict(left_out),
        "notes": {name: count for name, count in notes.items() if count},
    }
