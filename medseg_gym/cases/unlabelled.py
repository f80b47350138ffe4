"""Images without a truth, which people drop onto the page of `medseg serve`.

A folder of PNG files and `images.jsonl`, one line a case. What such cases are called is made of the
pixels and the target; the names of the files that people had are not kept, for they may name a
patient. Cases have no truth (`Case.truth_known`), so environments refuse them; recordings of what
was played on them are replayed and exported like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg_gym.cases.case import Case, hash_pixels
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.image_files.images import png_bytes, read_image
from medseg_gym.cases.source import EmptySplit
from medseg_gym.errors import CaseError
from medseg_gym.storage.atomic_write import atomic_write, locked
from medseg_gym.storage.line_files import append_rows, read_rows

INDEX = "images.jsonl"
SPLIT = "train"


class UnlabelledImages(CaseSource):
    """The images in a folder, those added meanwhile included.

    Args:
        folder: Of the images.
    """

    split = SPLIT

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = "unlabelled"
        self._state = (-1, -1)
        self._rows: dict[str, dict[str, str]] = {}

    def _read(self) -> dict[str, dict[str, str]]:
        path = self.folder / INDEX
        try:
            about = path.stat() if path.exists() else None
            state = (0, 0) if about is None else (about.st_size, about.st_mtime_ns)
            if state != self._state:
                rows = read_rows(path, CaseError, "remove that line, or move the file away")
                self._rows = {row["key"]: row for row in rows}
                self._state = state
        except OSError as error:
            raise CaseError(f"{path} cannot be read: {error.strerror}") from None
        except KeyError as error:
            raise CaseError(f"{path}: a line has no {error}; move the file away") from None
        return self._rows

    @property
    def keys(self) -> Sequence[str]:
        """Keys of the images, in the order in which they came."""
        return tuple(self._read())

    @property
    def targets(self) -> tuple[str, ...]:
        """Distinct target texts, in the order in which they came."""
        return tuple(dict.fromkeys(row["target"] for row in self._read().values()))

    def __getitem__(self, index: int) -> Case:
        row = list(self._read().values())[index]
        name = f"{row['image']}.png"
        pixels = read_image(self.folder / name, name)
        if hash_pixels(pixels) != row["image"]:
            raise CaseError(f"{self.folder / name} is not the image it was when it was added")
        return make_unlabelled(pixels, row["target"], row["modality"])

    def add(self, case: Case) -> None:
        """Keep a case of `make_unlabelled`; twice is harmless.

        Raises:
            CaseError: The folder cannot be written.
        """
        if case.key in self._read():
            return
        path = self.folder / f"{case.content_hash}.png"
        row = {
            "key": case.key,
            "image": case.content_hash,
            "target": case.target,
            "modality": case.modality,
        }
        if not path.exists():
            atomic_write(path, png_bytes(case.image), CaseError)
        with locked(self.folder / INDEX, CaseError):
            append_rows(self.folder / INDEX, [row], CaseError, durable=True)

    def nbytes(self) -> int:
        """Bytes of the images on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.png"))


def make_unlabelled(pixels: np.ndarray, target: str, modality: str = "") -> Case:
    """Make a case without a truth, named after its pixels and target.

    Args:
        pixels: (H, W, 3) uint8.
        target: What to segment, in words.
        modality: As in `Case`.
    """
    image = hash_pixels(pixels)
    words = hashlib.blake2b(f"{target}\n{modality}".encode(), digest_size=4).hexdigest()
    return Case(
        f"image-{image[:16]}-{words}",
        pixels,
        np.zeros(pixels.shape[:2], bool),
        target,
        modality,
        group=image,
        source="unlabelled",
        truth_known=False,
    )


def load(argument: str, split: str) -> UnlabelledImages:
    """Open a folder of images.

    Raises:
        CaseError: There is none, or another split than "train" is asked for.
    """
    if split != SPLIT:
        raise EmptySplit(f"unlabelled:{argument} has no split {split!r}, only {SPLIT!r}")
    if not (Path(argument) / INDEX).is_file():
        raise CaseError(f"unlabelled:{argument}: there is no {INDEX} in that folder")
    return UnlabelledImages(argument)
