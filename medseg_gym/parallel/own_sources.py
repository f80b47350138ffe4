"""Sources of a user's own files and modules, for hosts that do not have them.

A spec may name `./bright.py:Bright` or `my_pkg.policies:Bright`. The sources of such a folder are
sent to the hosts by Ray's runtime environment. A host that has the same files at the same place uses
those, and so finds what lies beside them; another uses the copies.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import also_look_in, own_files, use_copies

OwnSources = dict[str, str]
"""Folder here -> folder of its copies, below that of the runtime environment."""

_MODULE = re.compile(r"(?<![\w./])([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]")
_MOST_BYTES = 50_000_000
_NOT_SOURCES = {"__pycache__", "node_modules", "site-packages"}


def ship_sources(texts: Iterable[str], staging: Path) -> tuple[OwnSources, dict[str, Any]]:
    """Copy the sources that specs name, and say how Ray takes them to the hosts.

    Args:
        texts: Specs.
        staging: An empty folder.

    Returns:
        For `use_sources`, and a runtime environment.

    Raises:
        MedSegError: They are too large to be sent.
    """
    sources: OwnSources = {}
    files: dict[Path, set[Path]] = {}
    here = Path.cwd()
    for text in texts:
        for file in own_files(text):
            files.setdefault(file.parent, set()).update(_sources_in(file.parent))
        for module in _MODULE.findall(text):
            if (here / f"{module}.py").is_file() or (here / module).is_dir():
                files.setdefault(here, set()).update(_sources_in(here))
    size = 0
    for number, (folder, members) in enumerate(files.items()):
        sources[str(folder)] = name = f"own/{number}"
        for file in members:
            size += file.stat().st_size
            if size > _MOST_BYTES:
                raise MedSegError(
                    f"the Python files in {', '.join(map(str, files))} are over "
                    f"{_MOST_BYTES // 10**6} MB, too many to be sent to a cluster; keep your own "
                    "policies, cases and rewards in a folder of their own"
                )
            copy = staging / name / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return sources, {"working_dir": str(staging)} if sources else {}


def use_sources(sources: OwnSources, folder: Path) -> None:
    """Work in the folder of the program that shares out, with copies of what is not here.

    Args:
        sources: Of `ship_sources`.
        folder: The current one of that program.
    """
    copies = Path.cwd()
    if folder.is_dir():
        os.chdir(folder)
    for original, name in sources.items():
        copy = copies / name
        if not _same_sources(Path(original), copy):
            use_copies(Path(original), copy, folder)
            also_look_in(copy)
        else:
            also_look_in(Path(original))


def _sources_in(folder: Path) -> Iterable[Path]:
    """Python files of a folder, and of those below it that hold some themselves."""
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if _holds_sources(Path(place, name))]
        yield from (Path(place, file) for file in files if file.endswith(".py"))


def _holds_sources(folder: Path) -> bool:
    if folder.name in _NOT_SOURCES or folder.name.startswith("."):
        return False
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".py") for entry in entries)


def _same_sources(original: Path, copy: Path) -> bool:
    for file in copy.rglob("*.py"):
        there = original / file.relative_to(copy)
        if not there.is_file() or there.read_bytes() != file.read_bytes():
            return False
    return True
