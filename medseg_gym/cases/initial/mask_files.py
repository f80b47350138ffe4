"""Masks of another model from files: "initial_mask=file:predictions/{key}.png"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.masks import as_mask, read_labels
from medseg_gym.errors import CaseError

FIELDS = ("key", "name", "group", "target", "source")
"""Names that may stand in braces; "name" is the key without folders and ending."""

ABSENT = "with missing=empty such cases begin with nothing"
"""Way out for a file that is not there."""


@dataclass(frozen=True)
class MaskFiles:
    """Gives each case the mask in a file of its own.

    Args:
        pattern: Path of the file, with `FIELDS` in braces.
        missing: "refuse", or "empty" where a case without a file begins with nothing.
    """

    pattern: str
    missing: str = "refuse"

    def __call__(self, case: Case) -> np.ndarray | None:
        """Return (H, W) bool: what is not 0 in an image file or in a .npy array.

        Raises:
            Damaged: The file is not there, or holds no mask.
        """
        path = Path(self.pattern.format(**self._values(case))).expanduser()
        place = f"initial mask of case {case.key!r}"
        if not path.is_file():
            if self.missing == "empty":
                return None
            raise Damaged(str(path), f"is not there; {ABSENT}", place)
        if path.suffix == ".npy":
            return _array(path, place)
        return as_mask(read_labels(path, str(path), place), str(path), place)

    @staticmethod
    def _values(case: Case) -> dict[str, str]:
        name = Path(case.key).name.partition(".")[0]
        values = {field: str(getattr(case, field, "")) for field in FIELDS}
        return {**values, "name": name}


def load(argument: str, missing: str = "refuse") -> MaskFiles:
    """Open "initial_mask=file:PATTERN".

    Raises:
        CaseError: No pattern, one that is the same for all cases, a field that does not exist, or
            another choice of `missing`.
    """
    fields = re.findall(r"{(.*?)}", argument)
    unknown = [field for field in fields if field not in FIELDS]
    if not fields or unknown:
        problem = f"no {{{unknown[0]}}}" if unknown else "nothing in braces"
        raise CaseError(
            f"initial mask file:{argument}: {problem}; write a path such as masks/{{key}}.png with "
            f"one of {', '.join(f'{{{field}}}' for field in FIELDS)}"
        )
    check_missing(missing)
    return MaskFiles(argument, missing)


def check_missing(missing: str) -> None:
    """Refuse another choice than "refuse" and "empty".

    Raises:
        CaseError: It is another one.
    """
    if missing not in ("refuse", "empty"):
        raise CaseError(f"initial mask: missing must be refuse or empty, got {missing!r}")


def _array(path: Path, place: str) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Damaged(str(path), f"cannot be read ({error})", place) from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "bui":
        raise Damaged(str(path), "holds no (H, W) array of bool or whole numbers", place)
    mask: np.ndarray = values != 0
    return mask
