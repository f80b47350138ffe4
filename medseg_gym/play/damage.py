"""Stores and folders that cannot be read: what people are told, and what only the log says."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from medseg_gym.serving.errors import ServiceError

log = logging.getLogger("medseg_gym.serving")


class DamagedStore(ServiceError):
    """A trajectory store that cannot be read.

    Args:
        title: Of the store, for people.
    """

    def __init__(self, title: str) -> None:
        super().__init__(
            f"the recordings of {title} are damaged and cannot be read; whoever runs the service "
            "finds the file and the cause in its log"
        )


def log_damage(path: Path, error: Exception) -> None:
    """Say in the log what is wrong with which file."""
    log.error("damaged", exc_info=error, extra={"path": str(path)})


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """A message without the places on this machine that it names: names under them stay.

    Args:
        text: For people.
        folders: Where the page keeps things.
    """
    for folder in folders:
        for form in (str(folder.resolve()), str(folder)):
            if form not in (".", "/"):
                text = text.replace(f"{form}/", "").replace(form, folder.name)
    return text
