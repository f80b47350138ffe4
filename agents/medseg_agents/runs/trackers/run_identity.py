"""The id of a run at a tracker, kept beside it so that a resumed run goes on there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medseg_gym.storage.atomic_write import atomic_write

_FILE = "trackers.json"


def read_identity(folder: Path, tracker: str) -> str:
    """Return the id that a tracker knows a run by, "" for none.

    Args:
        folder: Of the run.
        tracker: Kind of the tracker.
    """
    return str(_read(folder / _FILE).get(tracker, ""))


def write_identity(folder: Path, tracker: str, identity: str) -> None:
    """Keep the id that a tracker knows a run by.

    Args:
        folder: Of the run.
        tracker: Kind of the tracker.
        identity: The id.
    """
    known = {**_read(folder / _FILE), tracker: identity}
    atomic_write(folder / _FILE, json.dumps(known, indent=1))


def options_of(folder: Path) -> dict[str, Any]:
    """Return the options of a run, `config.json`; none before that is written.

    Args:
        folder: Of the run.
    """
    return _read(folder / "config.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
