"""A surveyed data set: every case of every split, and everything that is wrong with it."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache, index_path
from medseg_gym.cases.files.records import Facts, Record
from medseg_gym.cases.files.splits import DEFAULT_SHARES, parse_shares, split_of_group
from medseg_gym.cases.source import SPLITS
from medseg_gym.errors import CaseError

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (done, total)

_SKIPPED = "defects (skip_bad=1 leaves out what has them)"


class FileData:
    """The cases of a layout, indexed but not read.

    Args:
        layout: The format, with its path and options.

    Raises:
        CaseError: The path does not exist, or an option cannot be used.
    """

    def __init__(self, layout: DatasetFormat) -> None:
        self.layout, self.spec = layout, layout.spec
        self.skip_bad = self.spec.flag("skip_bad")
        self._shares = DEFAULT_SHARES
        if "splits" in self.spec.options:
            self._shares = parse_shares(self.spec.options["splits"])
        self._group = self._group_pattern()
        self._require_root()
        self.records: tuple[Record, ...] = ()
        self.defects: tuple[Defect, ...] = ()
        with FileCache(self._index("structure")) as file_cache:
            self._collect(layout.index(file_cache))
        self._said = False
        if self.skip_bad:
            self.examine()

    @property
    def name(self) -> str:
        """Short name for tables and cases: layout and last folder, as "biomedparse:BTCV"."""
        return f"{self.spec.name}:{self.spec.path.resolve().name}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts of all splits, sorted."""
        return tuple(sorted({record.target for record in self.records}))

    @property
    def bad(self) -> list[Defect]:
        """The defects that are not mere notes."""
        return [defect for defect in self.defects if not defect.note]

    @property
    def left_out(self) -> dict[str, int]:
        """How many things were left out of all splits, by reason; see `CaseSource.left_out`."""
        counts: Counter[str] = Counter()
        for defect in self.defects:
            if defect.left_out:
                counts[defect.reason] += defect.left_out
        if self.skip_bad and self.bad:
            counts[_SKIPPED] = len({str(defect) for defect in self.bad})
        return dict(counts)

    def say_left_out(self) -> str:
        """What was left out of all splits, to go behind other words; "" where nothing was."""
        counts = "; ".join(f"{reason}: {count}" for reason, count in self.left_out.items())
        return f"; left out: {counts}" if counts else ""

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
            more = f" (and {len(bad) - 1} more defects)" if len(bad) > 1 else ""
            raise CaseError(f"{self.spec}: {bad[0]}{more}; {self._way_out()}")
        if not self.records:
            raise CaseError(
                f"{self.spec}: there is no case under {self.spec.path}{self._why_empty()}; "
                f"docs/how-to/data.md shows the layout that {self.spec.name}: reads"
            )
        if bad and not self._said:
            self._said = True
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
        """What was left out or noticed, to go behind other words."""
        counts = self.say_left_out()
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
        found: list[Defect] = []
        kept: list[Record] = []
        with FileCache(self._index("pixels")) as file_cache:
            for done, record in enumerate(self.records, 1):
                told = self._examine(file_cache, record)
                if isinstance(told, Facts):
                    facts[record.key] = told
                    kept.append(record)
                else:
                    found.append(told)
                if progress is not None:
                    progress(done, len(self.records))
        self.records = tuple(kept)
        self.defects = (*self.defects, *found)
        return facts

    def _examine(self, file_cache: FileCache, record: Record) -> Facts | Defect:
        files = [self.layout.path(file) for file in record.files]
        told: dict[str, Any] = file_cache.remember(record.key, files, lambda: self._tell(record))
        if "area" in told:
            return Facts(**told)
        return Defect(**told)

    def _tell(self, record: Record) -> dict[str, Any]:
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
        pixels = self.layout.read(record)
        image, mask = pixels.image, pixels.mask
        if mask.shape != image.shape[:2]:
            other = f"its image {record.files[0]!r}" if len(record.files) > 1 else "the image"
            way_out = ""
            if mask.shape == image.shape[1::-1] and "orientation" in self.layout.options:
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

    def _collect(self, found: Iterator[Record | Defect]) -> None:
        records: dict[str, Record] = {}
        defects: list[Defect] = []
        for item in found:
            if isinstance(item, Record):
                item = self._complete(item)
            if isinstance(item, Defect):
                defects.append(item)
            elif item.key in records:
                defects.append(
                    Defect(item.files[0], f"a second case has the key {item.key!r}", key=item.key)
                )
            else:
                records[item.key] = item
        self.records = tuple(records.values())
        self.defects = (*defects, *self._straddling())

    def _complete(self, record: Record) -> Record | Defect:
        group = record.group or record.files[0]
        if self._group is not None:
            match = self._group.search(group)
            if match is None:
                cause = f"option group={self._group.pattern!r} matches nothing in {group!r}"
                return Defect(record.files[0], cause, key=record.key)
            group = match[1] if match.re.groups else match[0]
        split = record.split or split_of_group(group, self._shares)
        modality = self.spec.options.get("modality", record.modality)
        return replace(record, group=group, split=split, modality=modality)

    def _straddling(self) -> Iterator[Defect]:
        first: dict[str, Record] = {}
        seen: Counter[str] = Counter()
        for record in self.records:
            other = first.setdefault(record.group, record)
            if other.split != record.split:
                seen[record.group] += 1
        if seen:
            group = next(iter(seen))
            yield Defect(
                "",
                f"{len(seen)} groups lie in more than one split, the first is {group!r}: what was "
                "trained on is tested on; see the option group",
                note=True,
            )

    def _group_pattern(self) -> re.Pattern[str] | None:
        if "group" not in self.spec.options:
            return None
        try:
            return re.compile(self.spec.options["group"])
        except re.error as error:
            raise self.spec.wrong("group", f"not a regular expression: {error}") from error

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
        counting = self.layout.options
        if level == "structure" and self.layout.index_options is not None:
            counting = self.layout.index_options
        own = {k: v for k, v in self.spec.options.items() if k in counting}
        root = os.path.realpath(self.spec.path)
        name = f"{self.name}.{level}"
        return index_path(name, level, self.layout.version, root, sorted(own.items()))

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
