"""Sizes of a benchmark of several stages: read from a line, kept beside what they made."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from medseg_gym.errors import MedSegError

S = TypeVar("S")


def read_settings(kind: type[S], text: str) -> S:
    """Sizes from `name=value,...`.

    Args:
        kind: A dataclass of texts and numbers, each with a default.
        text: What differs from the defaults.

    Raises:
        MedSegError: A name that does not exist.
    """
    standard: Any = kind()
    defaults = asdict(standard)
    values: dict[str, Any] = {}
    for setting in filter(None, text.split(",")):
        name, _, value = setting.partition("=")
        if name not in defaults:
            raise MedSegError(f"there is no setting {name!r}; known: {', '.join(defaults)}")
        values[name] = type(defaults[name])(value)
    return kind(**values)


def claim(file: Path, sizes: Any) -> None:
    """Keep the sizes beside what they made, or compare them with those that are there.

    Args:
        file: Where; its folder is made.
        sizes: A dataclass.

    Raises:
        MedSegError: The folder holds something of other sizes.
    """
    text = json.dumps(asdict(sizes), indent=1)
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise MedSegError(f"{file.parent} holds other settings; name another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
