"""The folder of packaged images: its index, read at once, and its PNGs, read when asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.source import SPLITS, EmptySplit
from medseg_gym.errors import CaseError

PACKAGED = Path(__file__).parent / "data"
FORMAT = 1
WAY_OUT = (
    "reinstall medseg-gym, or run `python -m scripts.samples.build` in a checkout of its repository"
)


@dataclass(frozen=True)
class SampleRecord:
    """One line of the index: the facts of a case before a pixel is read.

    Args:
        key: Case key.
        image: Image file (8-bit grey or RGB PNG), relative to the pack; cases may share one.
        mask: Mask file (1-bit PNG), relative to the pack.
        target: Target text.
        group: Volume or image that the case was cut from.
        split: Split of that group.
        modality: As in `Case.modality`.
        spacing: (row, column) in mm, or None where the package does not say.
        single_box: False where the target lies in many pieces.
        area: Pixels of the mask.
    """

    key: str
    image: str
    mask: str
    target: str
    group: str
    split: str
    modality: str
    spacing: tuple[float, float] | None
    single_box: bool
    area: int


class SamplePack:
    """A folder written by `scripts/samples/build.py`.

    Args:
        path: The folder; by default the one inside the package.

    Raises:
        CaseError: `index.json` is missing, unreadable or not as the build script writes it.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._given = path
        self.path = PACKAGED if path is None else Path(path)
        self.index = self._read_index()
        self.records = self._read_records()
        self.targets: tuple[str, ...] = tuple(self.index["targets"])
        self._images: dict[str, np.ndarray] = {}
        self._cases: dict[str, Case] = {}
        self._lock = Lock()

    def source(self, split: str, multi_part: bool = False) -> SampleSource:
        """Open one split as a CaseSource.

        Raises:
            CaseError: The split has no such cases.
        """
        return SampleSource(self, split, multi_part)

    def describe(self, key: str) -> dict[str, Any]:
        """Return all fields of a case in the index: origin, licence, window, making of the mask.

        Raises:
            CaseError: No case has that key.
        """
        for entry in self.index["cases"]:
            if entry["key"] == key:
                group = self.index["groups"][entry["group"]]
                return {**self.index["origins"][group["origin"]], **group, **entry}
        raise CaseError(f"{self.path / 'index.json'} has no case {key!r}")

    def case(self, record: SampleRecord) -> Case:
        """Return the case of `record`, decoded at the first call and kept.

        Raises:
            CaseError: A PNG is missing or damaged, or image, mask and index do not agree.
        """
        with self._lock:
            if record.key not in self._cases:
                self._cases[record.key] = self._decode_case(record)
            return self._cases[record.key]

    def _decode_case(self, record: SampleRecord) -> Case:
        if record.image not in self._images:
            pixels = self._decode(record.image, ("L", "RGB"))
            if pixels.ndim == 2:
                pixels = np.repeat(pixels[:, :, None], 3, axis=2)
            pixels.flags.writeable = False
            self._images[record.image] = pixels
        image, mask = self._images[record.image], self._decode(record.mask, ("1",))
        if mask.shape != image.shape[:2]:
            raise self._damaged(
                record.mask,
                f"the mask is {mask.shape} but its image {record.image} is {image.shape[:2]} "
                "(height, width)",
            )
        if (area := int(np.count_nonzero(mask))) != record.area:
            raise self._damaged(
                record.mask, f"the mask has {area} pixels, index.json says {record.area}"
            )
        return Case(
            key=record.key,
            image=image,
            mask=mask,
            target=record.target,
            modality=record.modality,
            spacing=record.spacing,
            group=record.group,
            source="samples",
            synthetic=False,
        )

    def _decode(self, name: str, modes: tuple[str, ...]) -> np.ndarray:
        try:
            with Image.open(self.path / name, formats=["PNG"]) as file:
                if file.mode not in modes:
                    raise ValueError(f"PNG mode is {file.mode!r}, expected {' or '.join(modes)}")
                return np.array(file)
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises
            raise self._damaged(name, str(error) or type(error).__name__) from error

    def _read_index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads(
                (self.path / "index.json").read_text(encoding="utf-8")
            )
        except (OSError, ValueError) as error:
            raise self._damaged("index.json", str(error)) from error
        version = index.get("format") if isinstance(index, dict) else None
        if version != FORMAT:
            raise self._damaged("index.json", f"format is {version!r}, this version reads {FORMAT}")
        return index

    def _read_records(self) -> tuple[SampleRecord, ...]:
        records: dict[str, SampleRecord] = {}
        place = "cases"
        try:
            for i, entry in enumerate(self.index["cases"]):
                place = f"cases[{i}]"
                group = self.index["groups"][entry["group"]]
                spacing = group["spacing"]
                record = SampleRecord(
                    key=entry["key"],
                    image=entry["image"],
                    mask=entry["mask"],
                    target=entry["target"],
                    group=entry["group"],
                    split=group["split"],
                    modality=group["modality"],
                    spacing=None if spacing is None else (float(spacing[0]), float(spacing[1])),
                    single_box=bool(entry["single_box"]),
                    area=int(entry["area"]),
                )
                if record.key in records:
                    raise ValueError(f"key {record.key!r} appears twice")
                if record.target not in self.index["targets"]:
                    raise ValueError(f"target {record.target!r} is not listed under targets")
                records[record.key] = record
        except KeyError as error:
            raise self._damaged("index.json", f"{place}: {error} is missing") from error
        except (TypeError, ValueError, IndexError) as error:
            raise self._damaged("index.json", f"{place}: {error}") from error
        return tuple(records.values())

    def _damaged(self, name: str, cause: str) -> CaseError:
        return CaseError(f"sample pack: {self.path / name}: {cause}; {WAY_OUT}")

    def __reduce__(self) -> tuple:
        # Another process opens its own pack: pixels and lock stay here.
        return (open_pack, (self._given,))


class SampleSource(CaseSource):
    """One split of a SamplePack; a case is decoded when it is first read.

    Args:
        pack: The folder.
        split: "train", "val" or "test".
        multi_part: Take the targets that lie in many pieces instead of the ordinary ones.

    Raises:
        CaseError: The split has no such cases.
    """

    def __init__(self, pack: SamplePack, split: str, multi_part: bool = False) -> None:
        self.name = "samples:multi-part" if multi_part else "samples"
        self.split = split
        self.pack = pack
        chosen = [r for r in pack.records if r.single_box is not multi_part]
        self.records = tuple(r for r in chosen if r.split == split)
        if not self.records:
            has = [s for s in SPLITS if any(r.split == s for r in chosen)]
            raise EmptySplit(
                f"{self.name!r} has no split {split!r}; it has {', '.join(has) or 'no cases'}"
            )
        self._keys = tuple(r.key for r in self.records)
        self._index = {key: i for i, key in enumerate(self._keys)}

    @property
    def keys(self) -> Sequence[str]:
        """Case keys, in index order."""
        return self._keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Vocabulary of the whole pack, the same for all splits and for multi-part."""
        return self.pack.targets

    def __getitem__(self, index: int) -> Case:
        return self.pack.case(self.records[index])

    def index_of(self, key: str) -> int:
        """Index of the case called `key`."""
        return self._index[key] if key in self._index else super().index_of(key)


def open_pack(path: str | Path | None = None) -> SamplePack:
    """Open the pack at `path` (by default the packaged one), once per process.

    Raises:
        CaseError: Its index cannot be used.
    """
    return _open(None if path is None else str(path))


@lru_cache(maxsize=8)
def _open(path: str | None) -> SamplePack:
    return SamplePack(path)
