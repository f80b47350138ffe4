"""The journal: what a writer appends before anything is columnar.

A journal is a file of frames. Each frame is the length of its body and the CRC-32 of it (two
little-endian uint32), then the body: the length of a JSON text (uint32), the text, and bytes that
go with it (a packed mask). A kill can only tear the last frame, and readers drop that one.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.rows import (
    FORMAT,
    FORMAT_VERSION,
    check_version,
    facts_from_row,
    facts_to_row,
    step_from_row,
    step_to_row,
)
from medseg_gym.trajectories.trajectory import EpisodeFacts, RecordedStep, Trajectory

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


def _frame(record: dict[str, Any], blob: bytes = b"") -> bytes:
    text = json.dumps(record).encode()
    body = _LENGTH.pack(len(text)) + text + blob
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def header_frame() -> bytes:
    """The first frame of every journal."""
    return _frame({"format": FORMAT, "version": FORMAT_VERSION})


def begin_frame(id: str, facts: EpisodeFacts) -> bytes:
    """An episode begins."""
    row = facts_to_row(facts)
    truth = row.pop("truth")
    return _frame({"begin": id, **row}, truth)


def step_frame(id: str, step: RecordedStep, accepted: bool | None) -> bytes:
    """A step was taken; the last one carries the verdict."""
    row = step_to_row(step)
    mask = row.pop("mask")
    return _frame({"of": id, "accepted": accepted, **row}, mask)


def _frames(path: Path, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    start = 0
    while start + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, start)
        following = start + _HEAD.size + length
        body = data[start + _HEAD.size : following]
        good = length >= _LENGTH.size and zlib.crc32(body) == checksum
        if not good and not any(data[following:]):
            return  # the last frame, torn by a kill or filled up with zeros by a power cut
        if not good:
            raise TrajectoryError(
                f"{path} is damaged at byte {start}; move the file away to go on without it"
            )
        (size,) = _LENGTH.unpack_from(body)
        end = _LENGTH.size + size
        yield json.loads(body[_LENGTH.size : end]), body[end:]
        start = following


def read_journal(path: Path) -> list[Trajectory]:
    """Read every episode of a journal, unfinished ones with the steps so far.

    Args:
        path: Of the journal; another process may be writing to it.

    Returns:
        Episodes with at least one step, in order of their beginning.

    Raises:
        TrajectoryError: Damaged, foreign, or of a newer version.
        FileNotFoundError: The journal has become a chunk in the meantime.
    """
    facts: dict[str, EpisodeFacts] = {}
    steps: dict[str, list[RecordedStep]] = {}
    accepted: dict[str, bool | None] = {}
    for number, (record, blob) in enumerate(_frames(path, path.read_bytes())):
        if number == 0:
            check_version(path, record)
        elif "begin" in record:
            id = record["begin"]
            facts[id], steps[id] = facts_from_row({**record, "truth": blob}), []
        else:
            id = record["of"]
            steps[id].append(step_from_row({**record, "mask": blob}))
            accepted[id] = record["accepted"]
    return [Trajectory(id, facts[id], tuple(steps[id]), accepted[id]) for id in facts if steps[id]]
