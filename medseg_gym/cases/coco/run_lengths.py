"""Run lengths of COCO masks: column by column, background first.

pycocotools leaves what too few run lengths do not cover as the memory happens to be, so they are
counted here before anything is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gym.cases.files.access.json_values import kind_of
from medseg_gym.cases.files.defects import Damaged

_MOST = 2**32


def counts_of(value: Any, file: str, place: str) -> list[int]:
    """Return run lengths, of a list or of COCO's compressed text.

    Args:
        value: Of the JSON: `counts`.
        file: Path relative to the root, for the error.
        place: Where inside of it.

    Raises:
        Damaged: It is neither, or cut short.
    """
    if isinstance(value, str):
        return _decompressed(value, file, place)
    if not isinstance(value, list):
        raise Damaged(file, f"'counts' is {kind_of(value)}, expected run lengths", place)
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < _MOST:
            raise Damaged(file, f"a run length is {str(one)[:40]}, expected a whole number", place)
    return value


def _decompressed(text: str, file: str, place: str) -> list[int]:
    """Six bits a character, five of them of the number; from the third on, differences."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise Damaged(file, f"'counts' has {character!r}, which is no run length", place)
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if not 0 <= value < _MOST:
            raise Damaged(file, f"a run length is {value}, expected a whole number", place)
        counts.append(value)
        value, shift = 0, 0
    if shift:
        raise Damaged(file, "'counts' ends within a number: it was cut short", place)
    return counts


def draw_runs(counts: list[int], height: int, width: int, file: str, place: str) -> np.ndarray:
    """Return the mask of run lengths.

    Args:
        counts: From `counts_of`.
        height: Rows.
        width: Columns.
        file: Path relative to the root, for the error.
        place: Where inside of it.

    Returns:
        (H, W) bool.

    Raises:
        Damaged: They are of another number of pixels.
    """
    if (total := sum(counts)) != height * width:
        cause = f"its run lengths are of {total} pixels; {width} x {height} are {height * width}"
        raise Damaged(file, cause, place)
    values = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)
