"""The folder of this package in the user's cache directory."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(name: str) -> Path:
    """Return a folder under `medseg_gym` in the user's cache directory; it may not be there yet.

    Args:
        name: Of the folder: "checkpoints", "index", "samples".

    Returns:
        On Linux under `XDG_CACHE_HOME`, else `~/.cache`; elsewhere as the system has it.
    """
    return user_cache_path("medseg_gym", appauthor=False).expanduser() / name
