"""Print a version's part of CHANGELOG.md: `python -m scripts.release_notes 0.1.0`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def release_notes(version: str) -> str:
    """Return the text below the heading of a version.

    Raises:
        KeyError: The changelog has no such version; the message names those that it has.
    """
    text = CHANGELOG.read_text(encoding="utf-8")
    parts = re.split(r"^## \[(.+?)\].*\n", text, flags=re.MULTILINE)[1:]
    notes = dict(zip(parts[::2], parts[1::2], strict=True))
    if version not in notes:
        raise KeyError(f"no version {version!r} in {CHANGELOG.name}; it has {', '.join(notes)}")
    return notes[version].strip()


if __name__ == "__main__":
    try:
        print(release_notes(*sys.argv[1:]))
    except KeyError as error:
        sys.exit(f"error: {error.args[0]}")
