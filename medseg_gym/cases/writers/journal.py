"""The base of writers that keep a line for each case until the last one is written."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any

from medseg_gym.cases.case import Case
from medseg_gym.cases.drawn.kept_fields import EXTRA
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.writers.case_writer import (
    CaseWriter,
    case_fields,
    replace_file,
    require_words,
    slug,
)
from medseg_gym.errors import CaseError
from medseg_gym.storage.line_files import append_rows, mend, read_rows, write_rows


class JournalWriter(CaseWriter):
    """A writer of images, and at the end of one file that says what is on them.

    Until then the lines lie in `.<split>.unfinished`, the identity of the conversion first.
    """

    @property
    @abstractmethod
    def final(self) -> Path:
        """The file that makes the split readable."""

    @property
    @abstractmethod
    def folders(self) -> tuple[Path, ...]:
        """Folders of the split that belong to something else where there is no journal."""

    @abstractmethod
    def finished(self) -> tuple[str, int]:
        """Return identity and number of cases that `final` tells.

        Raises:
            ValueError: It is no such file; so do KeyError, IndexError and TypeError.
        """

    @abstractmethod
    def line_of(self, case: Case) -> dict[str, Any]:
        """Write the files of a case, and return its line."""

    @abstractmethod
    def close(self, lines: list[dict[str, Any]]) -> None:
        """Write `final` from all lines, whose "order" is their number."""

    def resume(self) -> int:
        """Return how many cases of the split are already written.

        Raises:
            CaseError: The folder holds something else, or cannot be read.
        """
        try:
            if self.final.exists():
                return self._finished()
            if not self._journal.exists():
                if other := next((one for one in self.folders if one.exists()), None):
                    raise self.foreign(other)
                write_rows(self._journal, [{"identity": self.identity}], CaseError)
                return 0
            return len(self._lines(repair=True))
        except OSError as error:
            raise CaseError(f"{self.out}: {error}") from error

    def write(self, case: Case) -> None:
        """Write the next case.

        Raises:
            CaseError: It has no target text, or the disk refuses.
        """
        require_words(case)
        append_rows(self._journal, [self.line_of(case)], CaseError)

    def finish(self) -> None:
        """Turn the lines into the last file."""
        if self.final.exists():
            return
        lines = self._lines()
        for number, line in enumerate(lines):
            line.get(EXTRA, line)["order"] = number
        self.close(lines)
        self._journal.unlink()

    def write_image(self, folder: Path, case: Case) -> str:
        """Write the image of a case unless it is there already; return its name."""
        name = f"{slug(case.group)}-{case.content_hash[:12]}.png"
        if not (folder / name).exists():
            replace_file(folder / name, png_bytes(case.image))
        return name

    @property
    def _journal(self) -> Path:
        return self.out / f".{self.split}.unfinished"

    def _finished(self) -> int:
        try:
            identity, count = self.finished()
        except (ValueError, TypeError, KeyError, IndexError):
            raise self.foreign(self.final) from None
        if identity != self.identity:
            raise self.foreign(self.final)
        return count

    def _lines(self, repair: bool = False) -> list[dict[str, Any]]:
        """Read the journal; a last line that a kill cut short is dropped."""
        if repair:
            mend(self._journal)
        rows = read_rows(self._journal, CaseError, "remove the folder, or that line")
        if not rows or rows[0] != {"identity": self.identity}:
            raise self.foreign(self._journal)
        return rows[1:]


def digest_of(text: str) -> str:
    """Return 8 hexadecimal digits that stand for a key in file names."""
    content = text.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=4).hexdigest()


def object_fields(case: Case) -> dict[str, Any]:
    """Return what a drawn object keeps of its case beside its label."""
    return {"target": case.target, **case_fields(case)}


class MarkedWriter(JournalWriter):
    """A writer whose files say nothing of the conversion: `.<split>.written` does."""

    @property
    def final(self) -> Path:
        """The mark, hidden from readers."""
        return self.out / f".{self.split}.written"

    def close(self, lines: list[dict[str, Any]]) -> None:
        """Write the files, and then the mark."""
        self.write_files(lines)
        mark = {"identity": self.identity, "cases": len(lines)}
        replace_file(self.final, json.dumps(mark).encode())

    @abstractmethod
    def write_files(self, lines: list[dict[str, Any]]) -> None:
        """Write what the format keeps beside the images."""

    def finished(self) -> tuple[str, int]:
        """See `JournalWriter.finished`."""
        mark = json.loads(self.final.read_bytes())
        return mark["identity"], mark["cases"]
