"""Defects of files: recorded one by one, without ending the reading of the other files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medseg_gym.errors import CaseError

CountsFor = Literal["", "slices", "volumes"]


@dataclass(frozen=True, order=True)
class Defect:
    """A defect of one file.

    Args:
        path: The file or folder, relative to the data's root ("" is the root itself).
        cause: What is wrong, in words, without the path.
        place: Where inside the file: "annotations[17]", "row 5", "slice 12"; "" is all of it.
        key: The case that it takes away; "" where no case can be named.
        note: True where opening goes on: an ignored file, say, or what an option leaves out.
        reason: Of a note that counts what was left out: the words without the count, the same in
            all notes that are to be added up; they name the option that changes it.
        left_out: How many were left out for that reason.
        counts_for: "slices" where a volume holds what was left out all the same, "volumes" where
            what was left out is no case anyway; "" for both.
    """

    path: str
    cause: str
    place: str = ""
    key: str = ""
    note: bool = False
    reason: str = ""
    left_out: int = 0
    counts_for: CountsFor = ""

    @classmethod
    def counting(
        cls, path: str, reason: str, count: int, place: str = "", counts_for: CountsFor = ""
    ) -> Defect:
        """Return a note about things that were left out.

        Args:
            path: See `Defect`.
            reason: See `Defect`.
            count: How many.
            place: Of the first one.
            counts_for: See `Defect`.
        """
        first = ", the first here" if count > 1 and (path or place) else ""
        cause = f"{reason}: {count} left out{first}"
        return cls(
            path, cause, place, note=True, reason=reason, left_out=count, counts_for=counts_for
        )

    def __str__(self) -> str:
        return ": ".join(text for text in (self.path or ".", self.place, self.cause) if text)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


class Damaged(CaseError):
    """A CaseError that still knows its `Defect`, so that a check can go on and list it.

    Args:
        path: See `Defect`.
        cause: See `Defect`.
        place: See `Defect`.
    """

    def __init__(self, path: str, cause: str, place: str = "") -> None:
        self.defect = Defect(path, cause, place)
        super().__init__(str(self.defect))

    def __reduce__(self) -> tuple:
        return Damaged, (self.defect.path, self.defect.cause, self.defect.place)


@contextmanager
def decoding(path: str, place: str = "") -> Iterator[None]:
    """Name the file in whatever a decoder raises.

    Put it around calls of foreign decoders alone: on damaged files they raise nearly anything.

    Args:
        path: See `Defect`.
        place: See `Defect`.

    Raises:
        Damaged: The decoder failed; an error of this package's own passes through unchanged.
    """
    try:
        yield
    except CaseError:
        raise
    except MemoryError as error:
        raise Damaged(path, "not enough memory to decode it", place) from error
    except RecursionError as error:
        raise Damaged(path, "nested too deeply", place) from error
    except Exception as error:
        raise Damaged(path, error_text(error), place) from error


def error_text(error: BaseException) -> str:
    """Return a one-line text of a foreign error, the same at every run."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))[:200]
    kind = type(error).__name__
    return f"{text} ({kind})" if text else kind
