"""Public bug reports of the field as rows: a small input, and what is right for it.

`expected.json` has a row for each: `report` names the public thread, `right` says in words what
must come of the input. Inputs are drawn (rectangles on seeded noise) and lie under `data/`. Masks
are bits, packed row by row, deflated, in base64; the values were also computed by other readers
(Pillow, scikit-image, highdicom, nibabel, tifffile, SimpleITK).
"""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent


def rows_of(kind: str) -> list:
    """Return the rows of a kind as parameters of a test."""
    rows = json.loads((HERE / "expected.json").read_text())["rows"]
    return [pytest.param(row, id=row["id"]) for row in rows if row["kind"] == kind]


def located(spec: str) -> str:
    """Return a spec whose path begins in the folder of the inputs."""
    name, _, path = spec.partition(":")
    return f"{name}:{HERE / 'data' / path}"


def unpack(expected: dict[str, Any]) -> np.ndarray:
    """Return an expected mask, (H, W) bool."""
    height, width = expected["shape"]
    bits = np.frombuffer(zlib.decompress(base64.b64decode(expected["packed"])), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def assert_says(text: str, row: dict[str, Any]) -> None:
    """Assert the words and numbers of a row; numbers in options and paths do not count."""
    for words in row.get("says", ()):
        choices = [words] if isinstance(words, str) else words
        assert any(re.search(one, text, re.IGNORECASE) for one in choices), (choices, text)
    plain = re.sub(r"\S+=\S+|\S*/\S*", "", text)
    for number in row.get("counts", ()):
        assert re.search(rf"\b{number}\b", plain), (number, text)
