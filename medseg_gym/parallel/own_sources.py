"""Sources of a user's own files and modules, for hosts that do not have them.

A spec may name `./bright.py:Bright` or `my_pkg.policies:Bright`. The sources of such a folder go to
every actor. A host that has the same files at the same place uses those, and so finds what lies
beside them; another uses copies in a temporary folder.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import also_look_in, own_files, use_copies

OwnSources = dict[str, dict[str, bytes]]
"""Folder -> path of a Python file below it -> its content."""

_MODULE = re.compile(r"(?<![\w./])([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_]")
_MOST_BYTES = 50_000_000
_NOT_SOURCES = {"__pycache__", "node_modules", "site-packages"}


def read_sources(texts: Iterable[str]) -> OwnSources:
    """Read the sources that specs name, and those beside them.

    Args:
        texts: Specs.

    Raises:
        MedSegError: They are too large to be sent.
    """
    here = Path.cwd()
    folders: dict[Path, None] = {}
    for text in texts:
        folders |= {file.parent: None for file in own_files(text)}
        for module in _MODULE.findall(unquote(text)):
            if (here / f"{module}.py").is_file() or (here / module).is_dir():
                folders[here] = None
    sources: OwnSources = {}
    size = 0
    for folder in folders:
        files = sources[str(folder)] = {}
        for file in _sources_in(folder):
            size += file.stat().st_size
            if size > _MOST_BYTES:
                raise MedSegError(
                    f"the Python files in {folder} are over {_MOST_BYTES // 10**6} MB, too many to "
                    "be sent to a cluster; keep your own policies, cases and rewards in a folder "
                    "of their own"
                )
            files[file.relative_to(folder).as_posix()] = file.read_bytes()
    return sources


def use_sources(sources: OwnSources, current: Path) -> list[tempfile.TemporaryDirectory[str]]:
    """Work in the folder of the program that shares out, with copies of sources that are not here.

    Args:
        sources: Of `read_sources`.
        current: The current folder of that program; left alone where there is no such folder here.

    Returns:
        The folders of the copies.
    """
    if current.is_dir():
        os.chdir(current)
    copies = []
    for folder, files in sources.items():
        original = Path(folder)
        if all(_is_same(original / name, content) for name, content in files.items()):
            also_look_in(original)
            continue
        copy = tempfile.TemporaryDirectory(prefix="medseg-own-")
        copies.append(copy)
        for name, content in files.items():
            file = Path(copy.name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        use_copies(original, Path(copy.name), current)
        also_look_in(Path(copy.name))
    return copies


def _is_same(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False


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
