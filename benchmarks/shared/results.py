"""The end of a benchmark: its table is shown, its numbers are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg_gym.display.terminal import Table, make_console
from medseg_gym.storage.atomic_write import atomic_write


def show_and_keep(table: Table, machine: str, out: Path, **results: Any) -> None:
    """Print a table and where it was measured, and write `results.json`.

    Args:
        table: Of the results.
        machine: Where they were measured.
        out: Folder of the file, which is made where it is not there.
        **results: What the file holds besides `machine`, as JSON knows it.
    """
    console = make_console()
    console.print(table)
    console.print(f"Measured on: {machine}")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "results.json", json.dumps({"machine": machine, **results}, indent=1))
