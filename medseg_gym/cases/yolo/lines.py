"""Read a label file: a class and a polygon a line, in fractions of the image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from medseg_gym.cases.drawn import ring
from medseg_gym.cases.files.access.guards import require_file
from medseg_gym.cases.files.defects import Damaged

_MAX_BYTES = 64_000_000
_ROUNDING = 0.001  # a fraction may leave the image by so much


def read_lines(path: Path, name: str) -> dict[str, Any]:
    """Read a label file, for a `FileCache`.

    Args:
        path: The file.
        name: Its path relative to the root.

    Returns:
        "lines": [line number, class, corners, whether it is a box] each; "defects" as dicts;
        "digest" of its bytes.
    """
    try:
        if path.exists() and not path.stat().st_size:  # an image without an object
            return {"lines": [], "defects": [], "digest": digest_of(b"")}
        require_file(path, name, _MAX_BYTES)
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        damage = Damaged(name, f"is not UTF-8 text ({error.reason} at byte {error.start})")
        return {"lines": [], "defects": [damage.defect.as_dict()], "digest": ""}
    except Damaged as error:
        return {"lines": [], "defects": [error.defect.as_dict()], "digest": ""}
    lines: list[Any] = []
    defects: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            lines.append([number, *_line(words, name, f"line {number}")])
        except Damaged as error:
            defects.append(error.defect.as_dict())
    return {"lines": lines, "defects": defects, "digest": digest_of(raw)}


def digest_of(content: bytes) -> str:
    """Return what tells whether a label file is as it was written."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _line(words: list[str], name: str, place: str) -> tuple[int, list[float], bool]:
    try:
        kind = int(float(words[0]))
        if kind != float(words[0]) or kind < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise Damaged(
            name, f"begins with {words[0][:40]!r}, expected a class number", place
        ) from None
    values = []
    for word in words[1:]:
        try:
            values.append(float(word))
        except ValueError:
            raise Damaged(name, f"has {word[:40]!r}, expected a number", place) from None
    is_box = len(values) == 4
    if is_box:
        x, y, width, height = values
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        values = [left, top, right, top, right, bottom, left, bottom]
    corners = ring(values, name, place)
    for value in corners:
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            cause = f"has {value:g}, which is no fraction of the image (0 to 1)"
            raise Damaged(name, f"{cause}; divide by width and height", place)
    return kind, corners, is_box
