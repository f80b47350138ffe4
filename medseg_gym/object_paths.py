"""Objects of a user's own modules and files by path: `package.module:Name`, `path/file.py:Name`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from medseg_gym.errors import MedSegError, nearest
from medseg_gym.own_code import remember_own, where_in_own

_SHOWN = 12
"""Names that a message lists of a module or a folder."""


def load_own(path: str, noun: str = "object", error: type[MedSegError] = MedSegError) -> Any:
    """Import what a user wrote: `package.module:Name` or `path/file.py:Name`.

    Modules are also looked for in the current folder, and those that a file imports beside it, as
    if it was run as a program. Both come behind what is installed, so that a user's `queue.py`
    stands in nobody's way.

    Raises:
        MedSegError: No such module, file or name; the message says where was looked, what is there
            and which name is nearest. Or the module fails while it is imported; the message says
            in which line.
    """
    place = path.rpartition(":")[0]
    also_look_in(Path.cwd())
    if place.endswith(".py"):
        also_look_in(_resolved(place).parent)
    try:
        return _find_object(path, noun, error, own=True)
    except (error, KeyboardInterrupt):
        raise
    except BaseException as problem:  # a script may end itself
        raise error(
            f"{noun} {path}: {place} cannot be imported: {where_it_failed(problem)}"
        ) from problem


def load_object(path: str, noun: str = "object", error: type[MedSegError] = MedSegError) -> Any:
    """Import `package.module:Name` or `path/file.py:Name`; a module's own failure passes through.

    Raises:
        MedSegError: No such module, file or name; see `load_own`.
    """
    return _find_object(path, noun, error, own=False)


def _find_object(path: str, noun: str, error: type[MedSegError], own: bool) -> Any:
    place, _, name = path.rpartition(":")
    if place.endswith(".py"):
        module = _load_file(place, noun, error)
    else:
        module = _import(place, noun, error)
    if own:
        remember_own(module)
    value: Any = module
    for attribute in name.split("."):
        if not hasattr(value, attribute):
            public = [key for key in vars(value) if not key.startswith("_")]
            file = getattr(module, "__file__", None) or place
            has_no = f"has no {attribute!r}{nearest(attribute, public)}"
            wrong = has_no if name else "is named without the object in it"
            raise error(f"{noun} {path}: {file} {wrong}; it holds: {_listed(_own_names(value))}")
        value = getattr(value, attribute)
    return value


def absolute_files(text: str) -> str:
    """Make the paths of Python files in a text absolute, for a process in another folder.

    Args:
        text: A spec, or one that holds others: `pool:100:./cases.py:Squares`, a sum of rewards.
    """
    for start, end, file in reversed(list(files_in(text))):
        text = text[:start] + str(file.absolute()) + text[end:]
    return text


def own_files(text: str) -> list[Path]:
    """Return the Python files that a text names, as absolute paths without symbolic links.

    Args:
        text: See `absolute_files`.
    """
    return [file.resolve() for _, _, file in files_in(text)]


def files_in(text: str) -> Iterator[tuple[int, int, Path]]:
    """Yield where the path of a Python file that exists begins and ends in a text, and the path.

    The value of an option may have its marks as %2F and the like.
    """
    for suffix in re.finditer(r"\.py(?=:|%3A)", text, re.IGNORECASE):
        marks = re.finditer(r"[:*+(,=-]\s*|\s+", text[: suffix.start()])
        for start in (0, *(mark.end() for mark in marks)):  # names may have blanks and dashes too
            written = text[start : suffix.end()]
            files = (Path(one).expanduser() for one in dict.fromkeys((written, unquote(written))))
            file = next(filter(_is_file, files), None)
            if file is not None:
                yield start, suffix.end(), file
                break


def with_absolute_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with their specs as `absolute_files` makes them; other values as they are."""
    return {k: absolute_files(v) if isinstance(v, str) else v for k, v in options.items()}


_COPIES: dict[Path, tuple[Path, Path]] = {}


def use_copies(original: Path, copy: Path, current: Path) -> None:
    """Load the Python files of another host's folder from copies of them.

    Args:
        original: The folder, as specs name it.
        copy: Of the folder, on this host.
        current: That host's current folder, which relative paths start from.
    """
    _COPIES[original] = copy, current


def _resolved(place: str) -> Path:
    """Path of a Python file, or of the copy that stands for it."""
    path = Path(place).expanduser()
    for original, (copy, current) in _COPIES.items():
        there = Path(os.path.normpath(current / path))
        if there.is_relative_to(original) and (copy / there.relative_to(original)).is_file():
            return copy / there.relative_to(original)
    return path.resolve()


def names_module(text: str) -> bool:
    """Return whether a text is the path of a Python file or the dotted name of a module."""
    return text.endswith(".py") or (
        "." in text and all(piece.isidentifier() for piece in text.split("."))
    )


def finds_module(text: str) -> bool:
    """Return whether a module without a dot can be imported, from the current folder too."""
    if not text.isidentifier():
        return False
    also_look_in(Path.cwd())
    try:
        return importlib.util.find_spec(text) is not None
    except (ImportError, ValueError):
        return False


def modules_here() -> list[str]:
    """Return the names of modules and packages in the current folder."""
    return [module.name for module in pkgutil.iter_modules([os.getcwd()])]


def no_module_here(text: str, modules: Iterable[str]) -> str:
    """Say that a name is no module of the current folder either.

    Args:
        text: The name, without a dot.
        modules: Of `modules_here`.

    Returns:
        A clause for a message about an unknown kind.
    """
    return (
        f"; nor is {text!r} a module in the current folder {os.getcwd()}, which holds: "
        f"{_listed(modules)}"
    )


def missing_object(text: str, noun: str) -> str:
    """Say what is wrong with a file or module that is named without an object in it.

    Args:
        text: What stands where `path/file.py:Name` or `package.module:Name` should.
        noun: Of what is wanted.

    Returns:
        The way out, for the end of a message; "" where the text is neither.
    """
    if text.endswith(".py"):
        return f"; a {noun} in a file is named {text}:NAME"
    module, _, name = text.rpartition(".")
    if module and names_module(text):
        return f"; a {noun} in a module is named {module}:{name}"
    return ""


def where_it_failed(problem: BaseException) -> str:
    """Say what went wrong in a user's own code, and in which line of which file."""
    words = f"{type(problem).__name__}: {problem}"
    # The text of a SyntaxError names file and line.
    return words if isinstance(problem, SyntaxError) else words + where_in_own(problem)


def also_look_in(folder: Path) -> None:
    """Let modules of a folder be imported, behind all others.

    Args:
        folder: Of the modules.
    """
    known = {os.path.realpath(entry or os.curdir) for entry in sys.path}
    if os.path.realpath(folder) not in known:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _import(name: str, noun: str, error: type[MedSegError]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        missing = problem.name or name
        if name == missing or name.startswith(missing + "."):
            raise error(f"{noun} {name}: {_no_module(missing)}") from problem
        raise


def _no_module(missing: str) -> str:
    """Say where a module was looked for, and what is there."""
    parent, _, _ = missing.rpartition(".")
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", ()))
        there = [f"{parent}.{module.name}" for module in pkgutil.iter_modules(folders)]
        held = f"{parent} holds: {_listed(there)}" if folders else f"{parent} is no package"
        return f"there is no module {missing!r}{nearest(missing, there)}; {held}"
    here = modules_here()
    everywhere = {module.name for module in pkgutil.iter_modules()}
    close = nearest(missing, here) or nearest(missing, everywhere)
    return (
        f"there is no module {missing!r}{close}; looked in the current folder {os.getcwd()}, which "
        f"holds: {_listed(here)}; and in {', '.join(e for e in sys.path[:3] if e)}, ... "
        "(PYTHONPATH adds more)"
    )


def _load_file(place: str, noun: str, error: type[MedSegError]) -> ModuleType:
    path = _resolved(place)
    if not path.is_file():
        there = sorted(other.name for other in path.parent.glob("*.py"))
        raise error(
            f"{noun} {place}: there is no file {path}{nearest(path.name, there)}"
            + (f"; that folder holds: {_listed(there)}" if there else "")
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


def _own_names(value: Any) -> list[str]:
    """Public names of a module or class, without what a module itself only imported."""
    name = getattr(value, "__name__", "")
    return [
        key
        for key, held in list(vars(value).items())
        if not key.startswith("_")
        and not isinstance(held, ModuleType)
        and (not isinstance(value, ModuleType) or getattr(held, "__module__", name) == name)
    ]


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    rest = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest if names else "nothing"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
