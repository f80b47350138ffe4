"""`nifti:PATH`: image and label volumes as cases, one per labelled slice and target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.files import Damaged, Defect, Layout, Memo, Pixels, Record, read_json, walk
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.nifti.dataset import FILE, Dataset, read_dataset
from medseg_gym.cases.nifti.labels import (
    Target,
    inline_labels,
    read_targets,
    unnamed,
    unnamed_targets,
)
from medseg_gym.cases.nifti.pairing import Pair, pair_volumes
from medseg_gym.cases.nifti.scan import Scan, scan_pair
from medseg_gym.cases.volumes import (
    AXES,
    RESAMPLING,
    Volume,
    fit_labels,
    parse_window,
    require,
    show,
    volume_suffix,
)
from medseg_gym.cases.volumes.slices import MIN_AREA, SliceChoice, joined
from medseg_gym.errors import CaseError

_LETTERS = {"axial": "z", "coronal": "y", "sagittal": "x"}


class NiftiLayout(Layout):
    """Volumes under a folder: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd.

    Options:
        axis: "axial" (default), "coronal" or "sagittal".
        window: See `medseg_gym.cases.volumes.parse_window`.
        min_area: Pixels that a target has on a slice, at least (default 20).
        slices: "all" (default), "top:N" (the N largest per volume and target) or "every:N".
        labels: Names of the label values: a .json file with "labels" as in dataset.json or that
            mapping alone (relative to PATH or to the working folder), or "1:liver,2:tumour". By
            default dataset.json, or the names in a .seg.nrrd, else "label 1", "label 2", ...
        channel: Which image channel: nnU-Net's `_0001` files, or the fourth axis (default 0).
        image: A word of the image's name, where a case has several images ("flair").
        resample: "nearest" carries labels that lie on another grid over to the grid of their image;
            by default they are refused. The order of voxel axes may differ in any case.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option has a value that cannot be used, or nibabel is not installed.
    """

    name = "nifti"
    version = 2
    index_options = ("axis", "resample")  # the rest is decided on what the index remembers
    options = ("axis", "window", "min_area", "slices", "labels", "channel", "image", "resample")

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        require(self.name, "nibabel")
        self.axis = spec.text("axis", "axial", choices=AXES)
        self.channel = int(spec.number("channel", 0, low=0, high=9999))
        self.image_word = spec.text("image")
        self.resample = spec.text("resample", "off", choices=RESAMPLING)
        area = int(spec.number("min_area", MIN_AREA, low=0))
        try:
            self.choice = SliceChoice.parse(spec.text("slices", "all"), area)
        except CaseError as error:
            raise spec.wrong("slices", str(error)) from error
        try:
            parse_window(spec.text("window"), "")
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error
        self.labels = self._given_labels()
        self._volumes: dict[tuple[str, str], Volume] = {}

    def survey(self, memo: Memo) -> Iterator[Record | Defect]:
        """See `Layout.survey`."""
        volumes: list[str] = []
        datasets: list[Dataset] = []
        for name in walk(self.root):
            if isinstance(name, Defect):
                yield name
            elif volume_suffix(name or self.root.name):
                volumes.append(name)
            elif name.rsplit("/", 1)[-1] == FILE:
                datasets.append(read_dataset(self.path(name), name))
        if volumes == [""]:
            yield Defect("", "is a single volume; give the folder that holds it and its labels")
            return
        datasets.sort(key=lambda dataset: -len(dataset.folder))  # the nearest one comes first
        owner = {v: _owner(v, datasets) for v in volumes}
        for dataset in datasets:
            yield from dataset.defects
        found = list(self._pairs(volumes, datasets, owner))
        declared = {pair.split for pair in found if isinstance(pair, Pair) and pair.split}
        for pair in found:
            if isinstance(pair, Defect):
                yield pair
                continue
            # Where all labels lie in labelsTr, "train" says nothing: the groups are shared out.
            split = pair.split if len(declared) > 1 else ""
            yield from self._cases(memo, pair, owner.get(pair.label), split)

    def read(self, record: Record) -> Pixels:
        """See `Layout.read`."""
        image, label = (self._volume(name) for name in record.files[:2])
        place = record.place
        window = parse_window(self.spec.text("window"), place["modality"])
        low, high = window.limits(lambda a, b: image.percentiles(a, b, place["channel"]))
        plane = image.plane(place["slice"], place["channel"])
        try:
            pixels = show(plane, low, high)
        except CaseError as error:
            raise Damaged(image.name, str(error), f"slice {place['slice']}") from error
        label = fit_labels(image, label, self.resample)
        labels = label.plane(place["slice"], place["layer"])
        values = place["values"]
        if not values:
            mask = labels > 0
        else:
            mask = labels == values[0] if len(values) == 1 else np.isin(labels, values)
        return Pixels(pixels, np.ascontiguousarray(mask))

    def _volume(self, name: str) -> Volume:
        path = self.path(name)
        try:
            stat = path.stat()
            key = (name, f"{stat.st_mtime_ns} {stat.st_size}")
        except OSError:
            key = (name, "")
        if key not in self._volumes:
            if len(self._volumes) >= 64:
                self._volumes.pop(next(iter(self._volumes)))
            self._volumes[key] = Volume(path, self.axis, name)
        return self._volumes[key]

    def _pairs(
        self, volumes: list[str], datasets: list[Dataset], owner: dict[str, Dataset | None]
    ) -> Iterator[Pair | Defect]:
        free = []
        for volume in volumes:
            dataset = owner[volume]
            if dataset is None or dataset.listed is None:
                free.append(volume)
        for dataset in reversed(datasets):
            if dataset.listed is not None:
                yield from dataset.pairs(set(volumes), self.channel)
        yield from pair_volumes(free, self.channel, self.image_word)

    def _cases(
        self, memo: Memo, pair: Pair, dataset: Dataset | None, split: str
    ) -> Iterator[Record | Defect]:
        image, label = self.path(pair.image), self.path(pair.label)
        sidecar = image.with_name(image.name[: -len(volume_suffix(image.name))] + ".json")
        remembered = memo.remember(
            f"{pair.image}|{pair.label}",
            [image, label, sidecar],
            lambda: scan_pair(
                image, pair.image, label, pair.label, self.axis, sidecar, self.resample
            ).as_json(),
        )
        scan = Scan.from_json(remembered)
        yield from scan.defects
        if scan.defects:
            return
        yield from scan.notes
        channels = dataset.channels if dataset else ()
        channel = 0
        if scan.channels > 1:
            if "channel" not in self.spec.options and len(channels) != scan.channels:
                yield Defect(
                    pair.image,
                    f"has {scan.channels} volumes along a fourth axis; choose one with channel=0",
                )
                return
            if self.channel >= scan.channels:
                yield Defect(pair.image, f"has no channel {self.channel}, only {scan.channels}")
                return
            channel = self.channel
        modality = self.spec.options.get("modality") or self._modality(pair, scan, channels)
        targets, trouble = self._targets(pair, scan, dataset)
        yield from trouble
        empty = True
        for target in targets:
            by_slice = joined(
                scan.areas.get((target.channel, value), {}) for value in target.values
            )
            if pair.organ:
                by_slice = joined(scan.areas.values())
            empty = empty and not by_slice
            for index in self.choice.choose(by_slice):
                yield Record(
                    key=f"{pair.image}/{_LETTERS[self.axis]}{index:03d}/{target.name}",
                    target=target.name,
                    files=(pair.image, pair.label),
                    place={
                        "slice": index,
                        "values": list(target.values),
                        "layer": target.channel,
                        "channel": channel,
                        "modality": modality,
                    },
                    split=split,
                    modality=modality,
                    spacing=scan.spacing,
                    size=scan.size,
                    area=by_slice[index],
                )
        if empty:
            yield Defect(pair.label, "holds no label above 0: no case comes from it", note=True)

    def _targets(
        self, pair: Pair, scan: Scan, dataset: Dataset | None
    ) -> tuple[tuple[Target, ...], list[Defect]]:
        """What to segment, and a defect for label values that nothing names."""
        values = {value for _, value in scan.areas}
        if pair.organ:
            return (Target(pair.organ.replace("_", " "), ()),), []
        if self.labels is not None:
            labels, whose = self.labels, "labels"
            targets = read_targets(labels)
        elif dataset is not None and dataset.targets:
            labels, targets, whose = dataset.labels, dataset.targets, dataset.path
        elif scan.segments:
            return scan.segments, []
        else:
            return unnamed_targets(values), []
        unknown = unnamed(values, labels)
        trouble = [
            Defect(pair.label, f"label {value} occurs, but {whose} does not name it")
            for value in unknown
        ]
        return targets, trouble

    def _modality(self, pair: Pair, scan: Scan, channels: tuple[str, ...]) -> str:
        told = channels[self.channel] if self.channel < len(channels) else ""
        return modality_of(told, scan.modality, pair.image.rsplit("/", 1)[-1])

    def _given_labels(self) -> Any:
        text = self.spec.text("labels")
        if not text:
            return None
        try:
            if text.lower().endswith(".json"):
                path = next((p for p in (self.root / text, Path(text)) if p.exists()), Path(text))
                labels = read_json(path.expanduser(), text)
                if isinstance(labels, dict) and isinstance(labels.get("labels"), dict | list):
                    labels = labels["labels"]
            else:
                labels = inline_labels(text)
            read_targets(labels)
        except CaseError as error:
            raise self.spec.wrong("labels", str(error)) from error
        return labels


def _owner(volume: str, datasets: list[Dataset]) -> Dataset | None:
    return next((d for d in datasets if volume.startswith(d.folder)), None)
