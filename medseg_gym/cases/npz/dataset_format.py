"""`npz:PATH`: arrays of the 3D challenges and of MedSAM as cases, one per slice and class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from medseg_gym.cases.files import (
    DatasetFormat,
    Defect,
    FileCache,
    FileOptions,
    FileSpec,
    Pixels,
    Record,
    VolumePixels,
    WrongOption,
    walk,
)
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.nifti.labels import labels_option, read_names, unnamed
from medseg_gym.cases.npz.scan import NpzScan
from medseg_gym.cases.npz.volume import NpzVolume
from medseg_gym.cases.source import SlicePlace
from medseg_gym.cases.volumes import parse_window
from medseg_gym.cases.volumes.slices import MIN_AREA, SliceChoice, joined
from medseg_gym.errors import CaseError

SUFFIX = ".npz"


@dataclass(frozen=True, kw_only=True)
class NpzOptions(FileOptions):
    """Options of `NpzFormat`."""

    topic: ClassVar[str] = "Arrays"

    window: str = ""
    """Intensities shown black and white, for images that are not 0..255 yet: LOW,HIGH, percentiles
    or a preset; see `medseg_gym.cases.volumes.parse_window`."""

    labels: str = ""
    """Names of the label values, as for `nifti:`: "1:liver,2:tumour" or a .json file; "ignore"
    leaves a value out. By default "label 1", "label 2", ..."""

    gts: str = ""
    """Folder with the files that hold `gts`, under the same names, where the images' files hold
    none (the challenge's validation set); relative to PATH or to the working folder."""

    spacing_order: Literal["slice-first", "slice-last"] = "slice-first"
    """Order of `spacing`: "slice-first" as the challenge's evaluation takes it (slice, row,
    column); "slice-last" as SimpleITK has it (column, row, slice), for files that MedSAM's scripts
    made."""

    min_area: int = MIN_AREA
    """Pixels that a target has on a slice, at least."""

    slices: str = "all"
    """"all", "top:N" (the N largest per volume and target) or "every:N"."""

    def __post_init__(self) -> None:
        if self.min_area < 0:
            raise WrongOption("min_area", "give a whole number from 0 on")


@dataclass(frozen=True)
class Entry:
    """One file, scanned.

    Args:
        name: Path relative to the root ("" is the root itself).
        labels: Path of the file that holds `gts`.
        scan: What is in it.
        targets: Name -> label values that occur.
        modality: As in `Case`.
        split: Split that a folder is named after, or "".
    """

    name: str
    labels: str
    scan: NpzScan
    targets: dict[str, tuple[int, ...]]
    modality: str
    split: str

    def record(self, key: str, target: str, place: dict, **fields: object) -> Record:
        """Return a record of one target of the file."""
        files = (self.name,) if self.labels == self.name else (self.name, self.labels)
        return Record(
            key=key,
            target=target,
            files=files,
            place={**place, "values": list(self.targets[target]), "modality": self.modality},
            split=self.split,
            modality=self.modality,
            synthetic=self.scan.synthetic,
            **fields,  # type: ignore[arg-type]
        )


class NpzFormat(DatasetFormat):
    """.npz files with `imgs` and `gts`, and maybe `spacing` and `boxes`; a folder or one file.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option has a value that cannot be used.
    """

    name = "npz"
    index_options = ("gts", "spacing_order")  # the rest is decided on what the index remembers
    options = NpzOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self.given = spec.read(NpzOptions)
        try:
            self.choice = SliceChoice.parse(self.given.slices, self.given.min_area)
        except CaseError as error:
            raise spec.wrong("slices", str(error)) from error
        try:
            parse_window(self.given.window, "")
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error
        self.labels = labels_option(spec)
        self._truths: Path | None = None
        if self.given.gts:
            text = Path(self.given.gts).expanduser()
            self._truths = next((p for p in (self.root / text, text) if p.is_dir()), None)
            if self._truths is None:
                raise spec.wrong("gts", f"is no folder, neither under {self.root} nor from here")
        self._open: dict[tuple[str, str], NpzVolume] = {}

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """See `DatasetFormat.index`."""
        counts = Counts()
        for entry in self.entries(file_cache):
            if isinstance(entry, Defect):
                yield entry
                continue
            scan = entry.scan
            for target, values in entry.targets.items():
                by_slice = joined(scan.areas[value] for value in values)
                self.choice.count_small(counts, by_slice, entry.name, scan.flat)
                for index in self.choice.choose(by_slice):
                    at = "" if scan.flat else f"z{index:03d}/"
                    yield entry.record(
                        f"{entry.name or self.root.name}/{at}{target}",
                        target,
                        {
                            "volume": f"{entry.name or self.root.name}/{target}",
                            "slice": index,
                            "flat": scan.flat,
                        },
                        spacing=scan.spacing and scan.spacing[-2:],
                        size=scan.shape[1:],
                        area=by_slice[index],
                    )
            used = {index for by_slice in scan.areas.values() for index in by_slice}
            first = next((n for n in range(scan.shape[0]) if n not in used), 0)
            if scan.areas:
                counts.add(
                    "",
                    "slices without a label",
                    f"{entry.name}, slice {first}",
                    left_out=True,
                    count=scan.shape[0] - len(used),
                    counts_for="slices",
                )
        yield from counts.notes()

    def entries(self, file_cache: FileCache) -> Iterator[Entry | Defect]:
        """List the files, scanned.

        Yields:
            Entries in the order of their names, and everything that is wrong.
        """
        for name in walk(self.root):
            if isinstance(name, Defect):
                yield name
            elif (name or self.root.name).lower().endswith(SUFFIX):
                yield from self._entry(file_cache, name)

    def read(self, record: Record) -> Pixels:
        """See `DatasetFormat.read`."""
        volume = self.volume(record.files[0], record.files[-1])
        index, place = record.place["slice"], record.place
        plane = volume.image(self.given.window, place["modality"])[index]
        labels = volume.labels()[index]
        image = plane if plane.ndim == 3 else np.repeat(plane[:, :, None], 3, axis=2)
        return Pixels(np.ascontiguousarray(image), np.isin(labels, place["values"]))

    def place(self, record: Record) -> SlicePlace | None:
        """See `DatasetFormat.place`; a file that holds an image is no volume."""
        place = record.place
        return None if place["flat"] else SlicePlace(place["volume"], place["slice"])

    def read_volume(self, record: Record) -> VolumePixels:
        """See `DatasetFormat.read_volume`."""
        volume = self.volume(record.files[0], record.files[-1])
        mask = np.isin(volume.labels(), record.place["values"])
        spacing = volume.spacing
        return VolumePixels(
            volume.image(self.given.window, record.place["modality"]),
            mask,
            (spacing[0], spacing[1], spacing[2]) if spacing else None,
        )

    def volume(self, name: str, labels: str) -> NpzVolume:
        """Open a file.

        Args:
            name: Path of the image, relative to the root.
            labels: Path of the file that holds `gts`.

        Raises:
            Damaged: It cannot be used.
        """
        other = None if labels == name else self.path(labels)
        shown = name or self.root.name
        return NpzVolume(self.path(name), shown, other, labels, self.given.spacing_order)

    def labels_of(self, name: str) -> str:
        """Return the path, relative to the root, of the file that holds `gts` of an image."""
        if self._truths is None:
            return name
        truth = self._truths / (name or self.root.name)
        return os.path.relpath(truth, self.root).replace(os.sep, "/")

    def _entry(self, file_cache: FileCache, name: str) -> Iterator[Entry | Defect]:
        labels = self.labels_of(name)
        files = [self.path(one) for one in dict.fromkeys((name, labels))]
        remembered = file_cache.remember(
            f"{name}|{labels}",
            files,
            lambda: NpzScan.of(lambda: self.volume(name, labels)).as_json(),
        )
        scan = NpzScan.from_json(remembered)
        yield from scan.defects
        if scan.defects:
            return
        try:
            targets, notes = self._targets(labels or self.root.name, scan)
        except CaseError as error:
            yield Defect(labels, str(error))
            return
        yield from notes
        folder = name.rpartition("/")[0]
        modality = self.given.modality or modality_of(name.rpartition("/")[2], folder)
        yield Entry(name, labels, scan, targets, modality, split_named(folder))
        if not scan.areas:
            reason = "files without a label above 0"
            cause = "holds no label above 0: no case comes from it"
            yield Defect(labels, cause, note=True, reason=reason, left_out=1)

    def _targets(
        self, labels: str, scan: NpzScan
    ) -> tuple[dict[str, tuple[int, ...]], list[Defect]]:
        if self.labels is None:
            return {f"label {value}": (value,) for value in scan.areas}, []
        if without := unnamed(scan.areas, self.labels):
            raise CaseError(
                f"label {without[0]} occurs, but labels= does not name it; name it or leave it "
                f"out, as {without[0]}:ignore"
            )
        named = read_names(self.labels)
        targets = {
            name: tuple(value for value in values if value in scan.areas)
            for name, values in named.items()
        }
        used = {value for values in named.values() for value in values}
        count = sum(len(by) for value, by in scan.areas.items() if value not in used)
        reason = "labels on slices that are called ignore (labels= changes that)"
        notes = [Defect.counting(labels, reason, count)] if count else []
        return {name: values for name, values in targets.items() if values}, notes
