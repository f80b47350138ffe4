"""Frames: how a journal's records lie in a file, and how they are found again in a damaged one.

A frame is the length of its body and the CRC-32 of it (two little-endian uint32), then the body:
the length of a JSON text (uint32), the text, and bytes that go with it (a packed mask, say). The
text begins with the frame's number in the file and the length of those bytes. So every length is
there twice, a frame that is missing shows, and the beginning of a text is a mark to search for:
whatever is readable behind damage is found.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_BEFORE_TEXT = _HEAD.size + _LENGTH.size

_NUMBERED = re.compile(rb'\{"frame": (\d+), "blob": (\d+), ')
_MARK = re.compile(rb'\{"(?:frame|format|begin|of)": ')  # the last three: written by 0.1.0
_LONGEST_START = len('{"frame": , "blob": , ') + 2 * 10  # of a text, as far as `_NUMBERED` reads


class Frame(NamedTuple):
    """A frame whose checksum agrees.

    Args:
        record: Its text.
        blob: The bytes that go with it.
        number: In the file; None in files of 0.1.0, which do not count.
        holed: Whether frames may be missing right before it.
    """

    record: dict[str, Any]
    blob: bytes
    number: int | None
    holed: bool = False


@dataclass
class Frames:
    """Content of a file of frames.

    Args:
        frames: All that can be read, in order.
        damaged: Where damage begins, in bytes; empty if there is none. A torn end is none.
    """

    frames: list[Frame] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


def frame(number: int, record: dict[str, Any], blob: bytes = b"") -> bytes:
    """Make a frame.

    Args:
        number: In its file, from 0.
        record: What JSON can hold.
        blob: Bytes that go with it.
    """
    text = json.dumps({"frame": number, "blob": len(blob), **record}).encode()
    body = _LENGTH.pack(len(text)) + text + blob
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def read_frames(data: bytes) -> Frames:
    """Read every frame there is, also those behind damage.

    Args:
        data: Content of the file.

    Returns:
        The frames, and where damage is. The end of the file is no damage if it is what a kill
        leaves of the frame that was being written, or what a power cut filled with zeros.
    """
    frames = Frames()
    start, expected = 0, 0
    holed = False
    seen: set[int] = set()
    while start < len(data):
        parsed = _frame_at(data, start)
        if parsed is None:
            following = _next_frame(data, start)
            if following is None and _is_torn(data[start:]):
                break
            frames.damaged.append(start)
            holed = True
            if following is None:
                break
            start = following
            continue
        one, end, length_agrees = parsed
        if not length_agrees:
            frames.damaged.append(start)  # readable nevertheless
        if one.number is not None and one.number != expected:
            if length_agrees and not holed:
                frames.damaged.append(start)
            holed = True
        if one.number is None or one.number not in seen:
            frames.frames.append(one._replace(holed=holed))
            holed = False
            if one.number is not None:
                seen.add(one.number)
                expected = one.number + 1
        start = end
    if all(one.number is not None for one in frames.frames):
        frames.frames.sort(key=lambda one: one.number or 0)
    return frames


def _frame_at(data: bytes, start: int) -> tuple[Frame, int, bool] | None:
    """The frame that begins there, where it ends, and whether its first length is right."""
    if start + _BEFORE_TEXT > len(data):
        return None
    length, checksum = _HEAD.unpack_from(data, start)
    (size,) = _LENGTH.unpack_from(data, start + _HEAD.size)
    start_of_text = start + _BEFORE_TEXT
    numbered = _NUMBERED.match(data, start_of_text)
    lengths = [length]
    if numbered and _LENGTH.size + size + int(numbered[2]) != length:
        lengths.append(_LENGTH.size + size + int(numbered[2]))
    for tried in lengths:
        end = start + _HEAD.size + tried
        if tried < _LENGTH.size + size or end > len(data):
            continue
        if zlib.crc32(memoryview(data)[start + _HEAD.size : end]) != checksum:
            continue
        text_end = start_of_text + size
        try:
            record = json.loads(data[start_of_text:text_end])
        except ValueError:
            return None
        if not isinstance(record, dict):
            return None
        number = int(numbered[1]) if numbered else None
        return Frame(record, data[text_end:end], number), end, tried == length
    return None


def _next_frame(data: bytes, after: int) -> int | None:
    """Return the position of the next readable frame."""
    for mark in _MARK.finditer(data, after + 1 + _BEFORE_TEXT):
        start = mark.start() - _BEFORE_TEXT
        if _frame_at(data, start) is not None:
            return start
    return None


def _is_torn(tail: bytes) -> bool:
    """Return True if the end of a file is the beginning of a frame that was never finished.

    Args:
        tail: What follows the last readable frame; no readable frame is in it.
    """
    written = tail.rstrip(b"\0")  # a power cut may leave zeros where the rest was to be
    if len(tail) < _BEFORE_TEXT or not written:
        return True
    length, checksum = _HEAD.unpack_from(tail)
    (size,) = _LENGTH.unpack_from(tail, _HEAD.size)
    begun = _NUMBERED.match(tail, _BEFORE_TEXT)
    if begun is not None:
        if _LENGTH.size + size + int(begun[2]) != length:
            return False
    elif len(written) >= _BEFORE_TEXT + _LONGEST_START:
        of_old = _MARK.match(tail, _BEFORE_TEXT) is not None and length >= _LENGTH.size + size
        if not of_old or zlib.crc32(tail[_HEAD.size :]) == checksum:
            return False  # in the second case the frame is whole, and its length is not its own
    unfinished: bool = len(written) < _HEAD.size + length
    return unfinished
