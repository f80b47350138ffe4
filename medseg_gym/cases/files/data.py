"""An indexed data set: every case of every split, and everything that is wrong with it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import CountsFor, Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache, index_path
from medseg_gym.cases.files.grouping import Grouping, straddling
from medseg_gym.cases.files.records import Facts, Record
from medseg_gym.cases.files.spec import FileOptions
from medseg_gym.cases.source import SPLITS
from medseg_gym.errors import CaseError
from medseg_gym.options import describe_fields

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total)

_SKIPPED = "defects (skip_bad=1 leaves out what has them)"


class FileData:
    """The cases of a data set, indexed but not read.

    Args:
        dataset_format: The format, with its path and options.

    Raises:
        CaseError: The path does not exist, or an option cannot be used.
    """

    def __init__(self, dataset_format: DatasetFormat) -> None:
        self.dataset_format, self.spec = dataset_format, dataset_format.spec
        self.skip_bad = self.spec.read(FileOptions).skip_bad
        self._grouping = Grouping(self.spec)
        self._require_root()
        self.records: tuple[Record, ...] = ()
        self.defects: tuple[Defect, ...] = ()
        with FileCache(self._index("structure")) as file_cache:
            self._collect(dataset_format.index(file_cache))
        self._warned = False
        if self.skip_bad:
            self.examine()

    @property
    def name(self) -> str:
        """Short name for tables and cases: format and last folder, as "biomedparse:BTCV"."""
        return f"{self.spec.name}:{self.spec.path.resolve().name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts of all splits, sorted."""
        return tuple(sorted({record.target for record in self.records}))

    @property
    def draws_splits(self) -> bool:
        """Return whether groups are dealt to splits by a hash, for nobody has said which."""
        return not self._named_splits and "splits" not in self.spec.options

    @property
    def bad(self) -> list[Defect]:
        """The defects that are not mere notes."""
        return [defect for defect in self.defects if not defect.note]

    @property
    def left_out(self) -> dict[str, int]:
        """Counts of things left out of all splits, by reason; see `CaseSource.left_out`."""
        return self._left_out("slices")

    @property
    def left_out_of_volumes(self) -> dict[str, int]:
        """The same of its volumes, which hold the slices that are no cases of their own."""
        return self._left_out("volumes")

    def _left_out(self, of: CountsFor) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for defect in self.defects:
            if defect.left_out and defect.counts_for in ("", of):
                counts[defect.reason] += defect.left_out
        if self.skip_bad and self.bad:
            counts[_SKIPPED] = len({str(defect) for defect in self.bad})
        return dict(counts)

    def left_out_text(self) -> str:
        """Return what was left out of all splits as the end of a sentence; "" for nothing."""
        counts = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
        return f"; left out: {counts}" if counts else ""

    def other_splits(self, split: str) -> str:
        """Return the ways to cases where a split has none, as the end of a sentence."""
        names = " or ".join(f"--split {one}" for one in self._splits())
        text = f". Take {names}, or --split all"
        if self._named_splits:
            return text
        shares = ",".join("100" if one == split else "0" for one in SPLITS)
        again, one_split = self.spec.adding(splits="50,20,30"), self.spec.adding(splits=shares)
        return (
            f"{text}; the data name no splits, so other shares may be given, as in {again!r}, or "
            f"{one_split!r} for all of it"
        )

    def _splits(self) -> list[str]:
        present = {record.split for record in self.records}
        return [split for split in SPLITS if split in present]

    def split(self, split: str) -> tuple[Record, ...]:
        """Records of a split, in order."""
        return tuple(record for record in self.records if record.split == split)

    def require_usable(self) -> None:
        """Refuse defective data unless `skip_bad` is on; with it, say how much was left out.

        Raises:
            CaseError: Something is defective and was not to be skipped, or no case is left.
        """
        bad = self.bad
        if bad and not self.skip_bad:
            others = f" (and {len(bad) - 1} more defects)" if len(bad) > 1 else ""
            raise CaseError(f"{self.spec}: {bad[0]}{others}; {self._way_out()}")
        if not self.records:
            raise CaseError(
                f"{self.spec}: there is no case under {self.spec.path}{self._why_empty()}; "
                f"docs/how-to/data.md shows the format that {self.spec.name}: reads"
            )
        if bad and not self._warned:
            self._warned = True
            lost = len({defect.key for defect in bad if defect.key})
            _log.warning(
                "%s: cases left out that have a name: %d; defects: %d, the first: %s; "
                "`medseg cases check` lists all",
                self.spec,
                lost,
                len({str(defect) for defect in bad}),
                bad[0],
            )

    def _why_empty(self) -> str:
        """Return what was left out or noticed as the end of a sentence."""
        counts = self.left_out_text()
        others = [d for d in self.defects if not d.left_out and d.note is not bool(self.bad)]
        if not others:
            return counts
        kind = "defects" if self.bad else "notes"
        return f"{counts}; the first of {len(others)} {kind}: {others[0]}"

    def case(self, record: Record) -> Case:
        """Read one case.

        Raises:
            CaseError: Its files cannot be used.
        """
        try:
            return self._read(record)
        except Damaged as error:
            raise CaseError(f"{self.spec}: {error}; {self._way_out()}") from error

    def examine(self, progress: Progress | None = None) -> dict[str, Facts]:
        """Read every pixel once and leave defective cases out; remembered until files change.

        Args:
            progress: Called with (done, total) after every case.

        Returns:
            What was found, by key, for the cases that can be read.
        """
        facts: dict[str, Facts] = {}
        defects: list[Defect] = []
        kept: list[Record] = []
        with FileCache(self._index("pixels")) as file_cache:
            for done, record in enumerate(self.records, 1):
                result = self._examine(file_cache, record)
                if isinstance(result, Facts):
                    facts[record.key] = result
                    kept.append(record)
                else:
                    defects.append(result)
                if progress is not None:
                    progress(done, len(self.records))
        self.records = tuple(kept)
        self.defects = (*self.defects, *defects)
        return facts

    def _examine(self, file_cache: FileCache, record: Record) -> Facts | Defect:
        files = [self.dataset_format.path(file) for file in record.files]
        kept: dict[str, Any] = file_cache.remember(
            record.key, files, lambda: self._examine_pixels(record)
        )
        if "area" in kept:
            return Facts(**kept)
        return Defect(**kept)

    def _examine_pixels(self, record: Record) -> dict[str, Any]:
        try:
            case = self._read(record)
        except Damaged as error:
            return replace(error.defect, key=record.key).as_dict()
        return {
            "height": case.height,
            "width": case.width,
            "area": int(np.count_nonzero(case.mask)),
            "flat": bool((case.image == case.image[0, 0]).all()),
        }

    def _read(self, record: Record) -> Case:
        pixels = self.dataset_format.read(record)
        image, mask = pixels.image, pixels.mask
        if mask.shape != image.shape[:2]:
            other = f"its image {record.files[0]!r}" if len(record.files) > 1 else "the image"
            way_out = ""
            known = describe_fields(self.dataset_format.options)
            if mask.shape == image.shape[1::-1] and "orientation" in known:
                way_out = "; orientation=stored leaves both as they are stored, whatever EXIF says"
            raise Damaged(
                record.files[-1],
                f"the mask is {mask.shape} but {other} is {image.shape[:2]} (height, width)"
                + way_out,
            )
        try:
            return Case(
                key=record.key,
                image=image,
                mask=mask,
                target=record.target,
                modality=record.modality,
                spacing=record.spacing,
                group=record.group,
                source=record.source or self.name,
                synthetic=record.synthetic,
            )
        except Damaged:
            raise
        except CaseError as error:
            raise Damaged(record.files[0], str(error)) from error

    def _collect(self, items: Iterator[Record | Defect]) -> None:
        records: dict[str, Record] = {}
        defects: list[Defect] = []
        self._named_splits = False
        for item in items:
            if isinstance(item, Record):
                self._named_splits |= bool(item.split)
                item = self._grouping.complete(item)
            if isinstance(item, Record):  # its split goes by the name in the data
                item = replace(item, group=self.dataset_format.group_label(item.group))
            if isinstance(item, Defect):
                defects.append(item)
            elif item.key in records:
                defects.append(
                    Defect(item.files[0], f"a second case has the key {item.key!r}", key=item.key)
                )
            else:
                records[item.key] = item
        self.records = tuple(records.values())
        self.defects = (*defects, *straddling(self.records))

    def _require_root(self) -> None:
        path = self.spec.path
        try:
            os.stat(path)
        except (OSError, ValueError) as error:
            what = (
                "does not exist" if isinstance(error, FileNotFoundError) else f"fails with {error}"
            )
            raise CaseError(
                f"{self.spec}: the path {path} {what}; give an existing file or folder "
                f"(relative paths start at {os.getcwd()})"
            ) from error

    def _index(self, level: str) -> Any:
        shared = describe_fields(FileOptions)
        counting = tuple(n for n in describe_fields(self.dataset_format.options) if n not in shared)
        if level == "structure" and self.dataset_format.index_options is not None:
            counting = self.dataset_format.index_options
        own = {k: v for k, v in self.spec.options.items() if k in counting}
        root = os.path.realpath(self.spec.path)
        name = f"{self.name}.{level}"
        return index_path(name, level, self.dataset_format.version, root, sorted(own.items()))

    def _way_out(self) -> str:
        skipping = self.spec.adding(skip_bad="1")
        return (
            f"repair or remove it, or leave defective cases out with {skipping!r}; "
            f"`medseg cases check {str(self.spec)!r}` lists every defect"
        )


def split_counts(data: FileData) -> str:
    """Say how many cases each split has: "train (12), test (3)"."""
    counts = Counter(record.split for record in data.records)
    return ", ".join(f"{split} ({counts[split]})" for split in SPLITS if counts[split])
