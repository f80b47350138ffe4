"""List folders safely: no loops, special files or forbidden places."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from medseg_gym.cases.files.defects import Defect, error_text

MAX_DEPTH = 64  # folders below the root


def walk(root: Path) -> Iterator[str | Defect]:
    """List the regular files under a folder, in sorted order, hidden ones left out.

    Every real folder is entered once, so links can neither loop nor multiply.

    Args:
        root: The folder, or one file.

    Yields:
        Path relative to the root with "/" between its parts ("" for a file that is the root), or
        a Defect for what cannot be listed: links that lead nowhere or back, unreadable folders,
        FIFOs, sockets and devices. A link to a folder that was already listed is a note.
    """
    try:
        status = os.stat(root)
    except (OSError, ValueError) as error:
        yield Defect("", error_text(error))
        return
    if stat.S_ISREG(status.st_mode):
        yield ""
    elif stat.S_ISDIR(status.st_mode):
        yield from _walk(os.fspath(root), "", {(status.st_dev, status.st_ino): ""}, ())
    else:
        yield Defect("", f"is {kind(status.st_mode)}, not a file or a folder")


def _walk(
    folder: str, relative: str, seen: dict[tuple[int, int], str], above: tuple[str, ...]
) -> Iterator[str | Defect]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Defect(relative, f"the folder cannot be listed: {error_text(error)}")
        return
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name.startswith("."):
            continue
        try:
            # On Linux scandir already knows a plain file: no stat for the many.
            if entry.is_file(follow_symlinks=False):
                yield name
                continue
            status = entry.stat()
        except OSError as error:
            yield Defect(name, f"the link cannot be followed: {error_text(error)}")
            continue
        if stat.S_ISREG(status.st_mode):
            yield name
        elif not stat.S_ISDIR(status.st_mode):
            yield Defect(name, f"is {kind(status.st_mode)}, not a file")
        else:
            yield from _enter(entry.path, name, (status.st_dev, status.st_ino), seen, above)


def _enter(
    folder: str,
    name: str,
    identity: tuple[int, int],
    seen: dict[tuple[int, int], str],
    above: tuple[str, ...],
) -> Iterator[str | Defect]:
    if identity in seen:
        first = seen[identity]
        loop = first == "" or first in above
        what = "the folder above it, a symbolic link loop" if loop else "a folder already listed"
        yield Defect(name, f"leads to {first or '.'!r}, {what}; not entered again", note=not loop)
    elif len(above) >= MAX_DEPTH:
        yield Defect(name, f"lies more than {MAX_DEPTH} folders deep; not entered")
    else:
        seen[identity] = name
        yield from _walk(folder, name, seen, (*above, name))


def kind(mode: int) -> str:
    """Name what a file mode stands for."""
    for test, name in (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISREG, "a file"),
    ):
        if test(mode):
            return name
    return "a special file"
