"""Notes that would be said a thousand times, said once with a count."""

from __future__ import annotations

from collections.abc import Iterator

from medseg_gym.cases.files.defects import Defect


class Tally:
    """Counts what was noticed by file and cause, and remembers the first place of each."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], list] = {}

    def add(self, path: str, cause: str, place: str) -> None:
        """Count one more.

        Args:
            path: File or folder that the note will be about.
            cause: What was noticed, in words that fit one as well as many.
            place: Where; the first one is shown.
        """
        self._seen.setdefault((path, cause), [place, 0])[1] += 1

    def notes(self) -> Iterator[Defect]:
        """Return a note for each path and cause."""
        for (path, cause), (place, count) in self._seen.items():
            more = f" ({count} times, here the first)" if count > 1 else ""
            yield Defect(path, cause + more, place, note=True)
