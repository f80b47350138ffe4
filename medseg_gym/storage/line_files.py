"""Files of JSON lines: one object a line, added to at the end.

A kill or a full disk can only tear the last line. Readers leave such a line out, and whoever adds
to the file removes it first, so that nothing is ever written onto half a line. Damage anywhere else
is an error that names file and line: a line that cannot be read is never passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write, named_failures


def read_rows(
    path: str | Path, error: type[MedSegError] = MedSegError, way_out: str = ""
) -> list[dict[str, Any]]:
    """Read every whole line.

    Args:
        path: Of the file; one that is not there has no lines.
        error: What damage is raised as.
        way_out: What a user can do about damage, for the error.

    Returns:
        The objects, in order. A last line that was torn is left out; one that lacks nothing but
        its end counts.

    Raises:
        MedSegError: As `error`: a line is no JSON object; or the file cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}") from cause
    *lines, last = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line)
            if row is None:
                way_out = way_out or "mend or remove that line"
                raise error(f"{path}:{number}: no JSON object, the file is damaged; {way_out}")
            rows.append(row)
    whole = _row(last)
    return rows if whole is None else [*rows, whole]


def append_rows(
    path: str | Path,
    rows: Iterable[Mapping[str, Any]],
    error: type[MedSegError] = MedSegError,
    durable: bool = False,
) -> None:
    """Add lines; all of them or, if the disk refuses, none.

    Args:
        path: Of the file; made with its folder if it is missing.
        rows: What JSON can hold; NaN and infinity are not JSON.
        error: What a failure of the disk is raised as.
        durable: Force the lines to the disk before returning.

    Raises:
        MedSegError: As `error`: the file cannot be written, or a number is not finite.
    """
    path = Path(path)
    text = "".join(_line(path, row, error) for row in rows).encode()
    with named_failures(path, error):
        path.parent.mkdir(parents=True, exist_ok=True)
        mend(path)
        # Unbuffered, so that a failure leaves nothing that is written later after all.
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                view = memoryview(text)
                while view:
                    view = view[file.write(view) :]
                if durable:
                    os.fsync(file.fileno())
            except BaseException:
                file.truncate(before)
                raise


def write_rows(
    path: str | Path, rows: Iterable[Mapping[str, Any]], error: type[MedSegError] = MedSegError
) -> None:
    """Replace a file by these lines.

    Args:
        path: Of the file.
        rows: See `append_rows`.
        error: Likewise.

    Raises:
        MedSegError: As `error`: the file cannot be written.
    """
    path = Path(path)
    atomic_write(path, "".join(_line(path, row, error) for row in rows), error)


def mend(path: Path) -> bool:
    """Remove a torn last line, or end one that is whole.

    Args:
        path: Of the file; one that is not there needs nothing.

    Returns:
        Whether there was something to do.
    """
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return False
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        if _row(content[end:]) is None:
            file.truncate(end)
        else:
            file.write(b"\n")
    return True


def _line(path: Path, row: Mapping[str, Any], error: type[MedSegError]) -> str:
    try:
        return json.dumps(row, allow_nan=False) + "\n"
    except ValueError as cause:
        raise error(f"{path}: a row cannot be written as JSON ({cause}): {row}") from cause


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
