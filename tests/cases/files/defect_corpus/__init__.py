"""Generated data sets, each with one thing wrong, and what must be said about it.

A function decorated with `@defect(format, name)` writes a small data set into an empty folder:
some healthy cases and one defect. It returns what is expected. `walk_corpus.py` and
`test_defects.py` hold every one of them to the same promises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Expected:
    """Expected result of a check.

    Args:
        path: The defective file, relative to the data's root, "/" between parts.
        cause: Regular expression that the defect's text must match (re.search, place and cause).
        healthy: Cases of all splits that stay usable under skip_bad; at least 1.
        options: Behind the path in the spec, with its question mark: "?axis=2".
        root: Where the data lies below the folder that was given; "" is that folder.
        note: The defect takes no case away, so opening goes on without skip_bad.
        unprivileged: Must be walked without root's rights to show.
    """

    path: str
    cause: str
    healthy: int
    options: str = ""
    root: str = ""
    note: bool = False
    unprivileged: bool = False


Maker = Callable[[Path], Expected]
CORPUS: dict[tuple[str, str], Maker] = {}


def defect(format: str, name: str) -> Callable[[Maker], Maker]:
    """Register the maker of a defective data set."""

    def keep(make: Maker) -> Maker:
        assert (format, name) not in CORPUS, f"{format}/{name} is registered twice"
        CORPUS[format, name] = make
        return make

    return keep


def load_corpus() -> dict[tuple[str, str], Maker]:
    """Import every module of makers beside this file."""
    from importlib import import_module

    for file in sorted(Path(__file__).parent.glob("*_defects.py")):
        import_module(f"{__name__}.{file.stem}")
    return CORPUS
