"""Objects of a user's own modules and files by path: `package.module:Name`, `path/file.py:Name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from medseg_gym.errors import MedSegError, nearest


def load_object(path: str, noun: str = "object", error: type[MedSegError] = MedSegError) -> Any:
    """Import `package.module:Name` or `path/file.py:Name`.

    Raises:
        MedSegError: No such module, file or name; the message says where was looked, what is there
            and which name is nearest.
    """
    place, _, name = path.rpartition(":")
    module = (
        _load_file(place, noun, error) if place.endswith(".py") else _import(place, noun, error)
    )
    value: Any = module
    for attribute in name.split("."):
        if not hasattr(value, attribute):
            public = sorted(key for key in vars(value) if not key.startswith("_"))
            raise error(
                f"{noun} {path}: {getattr(module, '__file__', place)} has no {attribute!r}"
                f"{nearest(attribute, public)}; it holds: {', '.join(public) or 'nothing'}"
            )
        value = getattr(value, attribute)
    return value


def _import(name: str, noun: str, error: type[MedSegError]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        missing = problem.name or name
        if name == missing or name.startswith(missing + "."):
            where = ", ".join(entry or os.getcwd() for entry in sys.path[:4])
            raise error(
                f"{noun} {name}: there is no module {missing!r}; looked in {where}, ..."
            ) from problem
        raise


def _load_file(place: str, noun: str, error: type[MedSegError]) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        there = sorted(other.name for other in path.parent.glob("*.py"))
        raise error(
            f"{noun} {place}: there is no file {path}{nearest(path.name, there)}"
            + (f"; that folder holds: {', '.join(there[:12])}" if there else "")
        )
    # One module for each file, under a name that no other module has.
    name = f"medseg_own_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickles look themselves up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def names_module(text: str) -> bool:
    """Return whether a text is the path of a Python file or the dotted name of a module."""
    return text.endswith(".py") or (
        "." in text and all(piece.isidentifier() for piece in text.split("."))
    )
