"""Count notes that would repeat, so that each is given once with its number."""

from __future__ import annotations

from collections.abc import Iterator

from medseg_gym.cases.files.defects import CountsFor, Defect


class Counts:
    """Counter of notes by file and cause; remembers the first place of each."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, bool, CountsFor], list] = {}

    def add(
        self,
        path: str,
        cause: str,
        place: str,
        *,
        left_out: bool = False,
        count: int = 1,
        counts_for: CountsFor = "",
    ) -> None:
        """Count one more.

        Args:
            path: File or folder that the note will be about.
            cause: What was noticed, in words that fit one as well as many.
            place: Where; the first one is shown.
            left_out: What was noticed gives no case though it might have: tables of results tell
                its number. Then the words are a noun with the option that changes it, as
                "targets under 20 pixels (min_area= changes that)".
            count: How many at once; nothing is noted of none.
            counts_for: Of what was left out, see `Defect`.
        """
        if count:
            self._seen.setdefault((path, cause, left_out, counts_for), [place, 0])[1] += count

    def notes(self) -> Iterator[Defect]:
        """Return a note for each path and cause."""
        for (path, cause, left_out, counts_for), (place, count) in self._seen.items():
            if left_out:
                yield Defect.counting(path, cause, count, place, counts_for)
                continue
            times = f" ({count} times, here the first)" if count > 1 else ""
            yield Defect(path, cause + times, place, note=True)
