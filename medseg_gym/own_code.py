"""Errors inside what users wrote: their own lines of the traceback, and none of this package's."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType

from medseg_gym.errors import MedSegError

_SHOWN = 8
"""Frames that a message shows; of more, the innermost."""

_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)$', re.M)

_own_places: set[str] = set()
"""Files and folders that users named in a spec, wherever they are installed."""


class OwnCodeError(MedSegError):
    """Something that a user wrote failed; the message is the user's part of the traceback."""


def remember_own(module: ModuleType) -> None:
    """Take a module for the user's own, its whole package too, wherever it is installed."""
    package = sys.modules.get(module.__name__.partition(".")[0], module)
    file = getattr(package, "__file__", None) or getattr(module, "__file__", None)
    if file:
        inside = os.path.basename(file) == "__init__.py"
        _own_places.add(os.path.realpath(os.path.dirname(file) if inside else file))


def own_frames(problem: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an error that are the user's code, outermost first; [] for none.

    Of an error that was raised from another, the first with such frames counts; an error of
    another process is read in the text that Ray carries.
    """
    return _find(problem)[1]


def where_in_own(problem: BaseException) -> str:
    """Return " (line N of FILE)", where an error came from the user's code; else ""."""
    frames = own_frames(problem)
    return f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""


def explain_own(problem: BaseException) -> str:
    """Say where the user's code failed: file, line and function, then its own traceback.

    Returns:
        "" where the error did not pass through the user's code.
    """
    one, frames = _find(problem)
    if not frames:
        return ""
    cause = getattr(one, "cause", None) or one  # Ray's errors hold the one that was raised
    last = frames[-1]
    words = traceback.format_exception_only(type(cause), cause)[-1].strip()
    return f"{last.filename}, line {last.lineno}, in {last.name}: {words}\n{traced(frames)}"


def traced(frames: list[traceback.FrameSummary]) -> str:
    """Return frames as lines of a traceback."""
    left = len(frames) - _SHOWN
    head = [f"  ... {left} more of your calls"] if left > 0 else []
    lines = [f"  {f.filename}:{f.lineno} in {f.name}\n    {f.line}" for f in frames[-_SHOWN:]]
    return "\n".join([*head, *lines])


def _find(problem: BaseException) -> tuple[BaseException, list[traceback.FrameSummary]]:
    """Return the error of a chain that came from the user's code, and its frames there."""
    for one in chain(problem):
        carried = str(getattr(one, "traceback_str", ""))
        for frames in (traceback.extract_tb(one.__traceback__), _frames_in(carried)):
            own = [frame for frame in frames if _is_own(frame.filename)]
            if own:
                return one, own
    return problem, []


def chain(problem: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised from."""
    one: BaseException | None = problem
    known: set[int] = set()
    while one is not None and id(one) not in known:
        known.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _frames_in(text: str) -> list[traceback.FrameSummary]:
    """Read the frames of a traceback that was printed."""
    return [
        traceback.FrameSummary(frame["file"], int(frame["line"]), frame["name"])
        for frame in _FRAME.finditer(text)
    ]


def _is_own(file: str) -> bool:
    if file.startswith("<"):
        return False
    path = os.path.realpath(file)
    if _lies_in(path, _packages()):
        return False
    return _lies_in(path, _own_places) or not (
        {"site-packages", "dist-packages"} & set(path.split(os.sep)) or _lies_in(path, _libraries())
    )


def _packages() -> set[str]:
    """Folders of this package, and of those that add commands to it."""
    names = ["medseg_gym"]
    names += [point.module.partition(".")[0] for point in entry_points(group="medseg_gym.commands")]
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return {os.path.realpath(os.path.dirname(file)) for file in files if file}


def _libraries() -> set[str]:
    places = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    return {os.path.realpath(sysconfig.get_path(name)) for name in places}


def _lies_in(path: str, places: set[str]) -> bool:
    return any(path == place or path.startswith(place + os.sep) for place in places)
