"""Errors of stores and folders that cannot be read; causes and paths go to the log alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from medseg_gym.serving.errors import ServiceError

log = logging.getLogger("medseg_gym.serving")


class DamagedStore(ServiceError):
    """A trajectory store that cannot be read.

    Args:
        title: Title of the store, for people.
    """

    def __init__(self, title: str) -> None:
        super().__init__(
            f"the recordings of {title} are damaged and cannot be read; whoever runs the service "
            "finds the file and the cause in its log"
        )


def log_damage(path: Path, error: Exception) -> None:
    """Log an error together with the path of the file."""
    log.error("damaged", exc_info=error, extra={"path": str(path)})


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """Remove the folders of this machine from a message; names below them stay.

    Args:
        text: Message for people.
        folders: Folders of the page.
    """
    for folder in folders:
        for form in (str(folder.resolve()), str(folder)):
            if form not in (".", "/"):
                text = text.replace(f"{form}/", "").replace(form, folder.name)
    return text
