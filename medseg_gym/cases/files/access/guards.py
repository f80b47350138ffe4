"""Open files that may be missing, special, huge, or made to fill the memory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from medseg_gym.cases.files.access.walk import kind
from medseg_gym.cases.files.defects import Damaged, error_text

MAX_PIXELS = 64_000_000
"""Pixels of one image or mask: 8000 x 8000, three quarters of a gigabyte while it is decoded."""

MAX_VOXELS = 512_000_000
"""Voxels of one volume: 800 x 800 x 800, one gigabyte as int16."""

MAX_JSON_BYTES = 512_000_000
"""Bytes of one JSON file; parsed, it takes several times as much memory."""


def require_file(path: str | Path, name: str, max_bytes: int | None = None) -> int:
    """Make sure that a path is a regular, non-empty, readable file before anything opens it.

    Opening a FIFO would wait for ever, so nothing is opened here.

    Args:
        path: The file.
        name: Its path relative to the root, for the error.
        max_bytes: Most bytes it may have.

    Returns:
        Its size in bytes.

    Raises:
        Damaged: It is missing, not a regular file, empty, not readable, or too large.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise Damaged(name, "the file is missing" if missing else error_text(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(name, f"is {kind(status.st_mode)}, not a file")
    if not status.st_size:
        raise Damaged(name, "the file is empty (0 bytes)")
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise Damaged(name, "permission denied")
    if max_bytes is not None and status.st_size > max_bytes:
        raise Damaged(name, f"has {status.st_size} bytes, more than the {max_bytes} that are read")
    return status.st_size


def check_pixels(height: int, width: int, name: str, place: str = "") -> None:
    """Refuse an image whose header announces more pixels than may be decoded.

    Raises:
        Damaged: More than `MAX_PIXELS`, or none.
    """
    if height < 1 or width < 1:
        raise Damaged(name, f"has no pixels ({height} x {width})", place)
    if height * width > MAX_PIXELS:
        raise Damaged(
            name,
            f"announces {height} x {width} pixels, more than the {MAX_PIXELS} that are decoded; "
            "scale or tile it",
            place,
        )


def check_voxels(shape: tuple[int, ...], name: str, place: str = "") -> None:
    """Refuse a volume whose header announces more voxels than may be decoded.

    Raises:
        Damaged: More than `MAX_VOXELS`, or none.
    """
    count = 1
    for side in shape:  # plain integers: a damaged header must not overflow
        count *= int(side)
    text = " x ".join(map(str, shape))
    if not shape or any(side < 1 for side in shape):
        raise Damaged(name, f"has no voxels ({text or 'no axes'})", place)
    if count > MAX_VOXELS:
        raise Damaged(
            name,
            f"announces {text} voxels, more than the {MAX_VOXELS} that are decoded; crop it",
            place,
        )


def read_json(path: Path, name: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        name: Its path relative to the root, for the error.

    Raises:
        Damaged: See `require_file`; or it is not UTF-8, not JSON, or nested too deeply.
    """
    require_file(path, name, MAX_JSON_BYTES)
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise Damaged(name, "broken JSON: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise Damaged(name, f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except ValueError as error:
        raise Damaged(name, f"broken JSON: {error}") from error
    except OSError as error:
        raise Damaged(name, error_text(error)) from error
