"""`nifti:PATH`: image and label volumes as cases, one per labelled slice and target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medseg_gym.cases.files import (
    Damaged,
    DatasetFormat,
    Defect,
    FileCache,
    Pixels,
    Record,
    VolumePixels,
)
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.spec import FileSpec, WrongOption
from medseg_gym.cases.nifti.dataset_json import FILE, Dataset, read_dataset
from medseg_gym.cases.nifti.labels import labels_option
from medseg_gym.cases.nifti.pairing import Pair, pair_volumes
from medseg_gym.cases.nifti.scan import Scan, scan_pair
from medseg_gym.cases.nifti.targets import find_targets
from medseg_gym.cases.nifti.value_names import Names, names_beside
from medseg_gym.cases.source import SlicePlace
from medseg_gym.cases.volumes import (
    Volume,
    fit_labels,
    parse_window,
    require,
    show,
    volume_suffix,
)
from medseg_gym.cases.volumes.scan import geometry_of, show_volume
from medseg_gym.cases.volumes.slices import SliceChoice, SliceOptions, joined
from medseg_gym.cases.volumes.whole_numbers import whole_numbers
from medseg_gym.errors import CaseError

_LETTERS = {"axial": "z", "coronal": "y", "sagittal": "x"}


@dataclass(frozen=True, kw_only=True)
class NiftiOptions(SliceOptions):
    """Options of `NiftiFormat`."""

    axis: Literal["axial", "coronal", "sagittal"] = "axial"
    """Direction in which volumes are cut."""

    labels: str = ""
    """Names of the label values: a .json file with "labels" as in dataset.json or that mapping
    alone (relative to PATH or to the working folder), or "1:liver,2:tumour"; "ignore" leaves a
    value out. By default dataset.json, BIDS' tables (dseg.tsv), or the names in a .seg.nrrd, else
    "label 1", "label 2", ... Of labels with several channels see `find_targets`."""

    channel: int = 0
    """Image channel: nnU-Net's `_0001` files, or the fourth axis."""

    image: str = ""
    """A word of the image's name, where a case has several images ("flair")."""

    nan: float = math.nan
    """Intensity that voxels count as that are NaN or infinite, before the window is applied
    (percentiles never see them); by default a slice that has any is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.channel <= 9999:
            raise WrongOption("channel", "give a number from 0 to 9999")


class NiftiFormat(DatasetFormat):
    """Volumes under a folder: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd.

    Labels are whole numbers, within `TOLERANCE` where storage is scaled or in floating point.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option has a value that cannot be used, or nibabel is not installed.
    """

    name = "nifti"
    version = 2
    index_options = ("axis", "resample")  # the rest is decided on what the index remembers
    options = NiftiOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        require(self.name, "nibabel")
        given = spec.read(NiftiOptions)
        self.axis, self.channel, self.image_word = given.axis, given.channel, given.image
        self.resample, self._window = given.resample, given.window
        self.nan = given.nan  # NaN: refuse
        self.choice = SliceChoice.of(spec)
        try:
            parse_window(given.window, "")
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error
        self.labels = labels_option(spec)
        self._volumes: dict[tuple[str, str], Volume] = {}

    def select(self, volumes: Sequence[str]) -> Iterator[str | Defect]:
        """Yield the volumes to look at, by default all, and Defects about others."""
        yield from volumes

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """See `DatasetFormat.index`."""
        volumes: list[str] = []
        sidecars: list[str] = []
        datasets: list[Dataset] = []
        for name in walk(self.root):
            if isinstance(name, Defect):
                yield name
            elif volume_suffix(name or self.root.name):
                volumes.append(name)
            elif name.rsplit("/", 1)[-1] == FILE:
                datasets.append(read_dataset(self.path(name), name))
            elif name.endswith((".tsv", ".json")):
                sidecars.append(name)
        if volumes == [""]:
            yield Defect("", "is a single volume; give the folder that holds it and its labels")
            return
        selected = list(self.select(volumes))
        yield from (one for one in selected if isinstance(one, Defect))
        volumes = [one for one in selected if not isinstance(one, Defect)]
        datasets.sort(key=lambda dataset: -len(dataset.folder))  # the nearest one comes first
        owner = {v: _owner(v, datasets) for v in volumes}
        for dataset in datasets:
            yield from dataset.defects
        counts = Counts()
        pairs = list(self._pairs(volumes, datasets, owner))
        declared = {pair.split for pair in pairs if isinstance(pair, Pair) and pair.split}
        for pair in pairs:
            if isinstance(pair, Defect):
                yield pair
                continue
            # Where all labels lie in labelsTr, "train" says nothing: the groups are shared out.
            split = pair.split if len(declared) > 1 else ""
            yield from self._cases(file_cache, pair, owner.get(pair.label), split, sidecars, counts)
        yield from counts.notes()

    def read(self, record: Record) -> Pixels:
        """See `DatasetFormat.read`."""
        image, label = (self._volume(name) for name in record.files[:2])
        place = record.place
        window = parse_window(self._window, place["modality"])
        low, high = window.limits(lambda a, b: image.percentiles(a, b, place["channel"]))
        where = f"slice {place['slice']}"
        plane = image.plane(place["slice"], place["channel"])
        try:
            pixels = show(self._finite(plane), low, high)
        except CaseError as error:
            raise Damaged(image.name, str(error), where) from error
        label = fit_labels(image, label, self.resample)
        return Pixels(pixels, self._mask(label, place["slice"], place["parts"]))

    def place(self, record: Record) -> SlicePlace:
        """See `DatasetFormat.place`."""
        return SlicePlace(record.place["volume"], record.place["slice"])

    def read_volume(self, record: Record) -> VolumePixels:
        """See `DatasetFormat.read_volume`."""
        image, label = (self._volume(name) for name in record.files[:2])
        place = record.place
        window = parse_window(self._window, place["modality"])
        pixels = show_volume(image, window, place["channel"], self._finite)
        label = fit_labels(image, label, self.resample)
        planes = [self._mask(label, index, place["parts"]) for index in range(len(label))]
        return VolumePixels(pixels, np.stack(planes), image.view.spacing, geometry_of(image))

    def _mask(self, label: Volume, index: int, parts: Sequence[Sequence[int]]) -> np.ndarray:
        """Return a target on slice `index`, (H, W) bool; no parts are all labels above 0."""
        mask = np.zeros(label.plane_shape, bool)
        for channel in dict.fromkeys(channel for channel, _ in parts or [(0, 0)]):
            plane = label.plane(index, channel)
            labels = whole_numbers(plane, label.name, f"slice {index}")
            values = [value for at, value in parts if at == channel]
            mask |= np.isin(labels, values) if values else labels > 0
        return mask

    def _finite(self, plane: np.ndarray) -> np.ndarray:
        """Replace what is not finite by the option `nan`.

        Raises:
            CaseError: There is such a pixel and no such option.
        """
        if plane.dtype.kind != "f" or (finite := np.isfinite(plane)).all():
            return plane
        if not finite.any():
            raise CaseError(f"all {plane.size} pixels are NaN or infinite: there is nothing to see")
        if math.isnan(self.nan):
            raise CaseError(
                f"{int(np.count_nonzero(~finite))} of {plane.size} pixels are NaN or infinite; "
                "nan=NUMBER gives the intensity that they stand for (that of the background, say)"
            )
        return np.where(finite, plane, self.nan)

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
        self,
        file_cache: FileCache,
        pair: Pair,
        dataset: Dataset | None,
        split: str,
        sidecars: list[str],
        counts: Counts,
    ) -> Iterator[Record | Defect]:
        image, label = self.path(pair.image), self.path(pair.label)
        sidecar = image.with_name(image.name[: -len(volume_suffix(image.name))] + ".json")
        remembered = file_cache.remember(
            f"{pair.image}|{pair.label}",
            [image, label, sidecar],
            lambda: scan_pair(
                image, pair.image, label, pair.label, self.axis, sidecar, self.resample
            ).as_json(),
        )
        scan = Scan.from_json(remembered)
        yield from scan.defects
        if not scan.usable:
            return
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
        try:
            names: Names | None
            if self.labels is not None:
                names = Names(self.labels, "labels=")
            else:
                names = names_beside(pair, dataset, self.root, sidecars)
        except Damaged as error:
            yield error.defect
            return
        except CaseError as error:
            yield Defect(pair.label, str(error))
            return
        for target in find_targets(pair, scan, names):
            if isinstance(target, Defect):
                yield target
                continue
            labels = target.parts or tuple(scan.areas)
            by_slice = joined(scan.areas.get(place, {}) for place in labels)
            self.choice.count_small(counts, by_slice, pair.label)
            for index in self.choice.choose(by_slice):
                yield Record(
                    key=f"{pair.key}/{_LETTERS[self.axis]}{index:03d}/{target.name}",
                    target=target.name,
                    files=(pair.image, pair.label),
                    place={
                        "volume": f"{pair.key}/{target.name}",
                        "slice": index,
                        "parts": [list(place) for place in target.parts],
                        "channel": channel,
                        "modality": modality,
                    },
                    split=split,
                    group=pair.subject,
                    modality=modality,
                    spacing=scan.spacing,
                    size=scan.size,
                    area=by_slice[index],
                )
        labelled = scan.labelled
        if not labelled:
            cause = "holds no label above 0: no case comes from it"
            reason = "label files without a label above 0"
            yield Defect(pair.label, cause, note=True, reason=reason, left_out=1)
        elif not pair.organ:  # such files have one organ each, of many on the same slices
            first = next((n for n in range(scan.slices) if n not in labelled), 0)
            counts.add(
                "",
                "slices without a label",
                f"{pair.label}, slice {first}",
                left_out=True,
                count=scan.slices - len(labelled),
                counts_for="slices",
            )

    def _modality(self, pair: Pair, scan: Scan, channels: tuple[str, ...]) -> str:
        channel_name = channels[self.channel] if self.channel < len(channels) else ""
        return modality_of(channel_name, scan.modality, pair.image.rsplit("/", 1)[-1])


def _owner(volume: str, datasets: list[Dataset]) -> Dataset | None:
    return next((d for d in datasets if volume.startswith(d.folder)), None)
