"""The base of all writers: whole files or none, and going on after a kill."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg_gym.cases.case import Case
from medseg_gym.errors import CaseError
from medseg_gym.storage.atomic_write import atomic_write


class CaseWriter(ABC):
    """A writer of one split, case after case, that goes on where a killed run stopped.

    Args:
        out: Folder; made if need be.
        split: "train", "val" or "test".
        identity: Text that says what is written (`identity_of`); another one in the folder means
            that the folder belongs to something else.
        total: Cases that the split will have.
    """

    def __init__(self, out: Path, split: str, identity: str, total: int) -> None:
        self.out, self.split, self.identity, self.total = out, split, identity, total

    @abstractmethod
    def resume(self) -> int:
        """Return how many cases of the split are already written, in order.

        Raises:
            CaseError: The folder holds something else.
        """

    @abstractmethod
    def write(self, case: Case) -> None:
        """Write the next case.

        Raises:
            CaseError: The format cannot express it, or the disk refuses.
        """

    @abstractmethod
    def finish(self) -> None:
        """Make the split readable; called after the last case."""

    def sweep(self) -> None:
        """Remove the halves of files that killed runs left behind."""
        for left in self.out.rglob(".*.part"):
            with suppress(OSError):
                left.unlink()

    def foreign(self, path: Path) -> CaseError:
        """Return an error about something else in the folder, to be raised."""
        return CaseError(
            f"{path} is there already and is not an unfinished conversion of the same cases; "
            "give another folder, or remove it"
        )


def case_fields(case: Case) -> dict[str, Any]:
    """Return the fields of a case that neither format has a place of its own for."""
    names = ("key", "modality", "spacing", "group", "source", "synthetic")
    return {name: getattr(case, name) for name in names}


def identity_of(spec: str, split: str, keys: Sequence[str]) -> str:
    """Return a text that is the same for the same cases of the same spec."""
    digest = hashlib.blake2b(digest_size=12)
    for key in keys:
        digest.update(key.encode("utf-8", "surrogateescape") + b"\n")
    return f"{spec}|{split}|{len(keys)}|{digest.hexdigest()}"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all.

    Raises:
        CaseError: It cannot be written.
    """
    # Made again when a conversion goes on, so a power cut may cost the newest ones.
    atomic_write(path, content, CaseError, durable=False)


def slug(text: str, length: int = 48) -> str:
    """Return a file name's worth of a text: ASCII letters, digits, "-", "." and "+"."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-.+") else "-" for c in text)
    return plain.strip("-.")[-length:].strip("-.") or "case"


def require_words(case: Case) -> None:
    """Refuse a case without a target text: no format here can read it back.

    Raises:
        CaseError: It has none.
    """
    if not case.target.strip():
        raise CaseError(f"case {case.key!r} has no target text; nothing would say what to segment")
