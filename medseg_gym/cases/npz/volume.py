"""Image, labels, spacing and boxes of one .npz file, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medseg_gym.cases.files import Damaged, check_voxels, decoding
from medseg_gym.cases.nifti.areas import MAX_DISTINCT
from medseg_gym.cases.npz.archive import Archive, ArrayHeader
from medseg_gym.cases.npz.boxes import VolumeBox, read_boxes
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes import parse_window
from medseg_gym.cases.volumes.volume import decoded
from medseg_gym.cases.volumes.whole_numbers import whole_numbers
from medseg_gym.cases.windowing import window_values

IMAGE, LABELS = "imgs", "gts"


@dataclass(frozen=True)
class NpzLayout:
    """Meaning of the arrays of a file.

    Args:
        shape: Slices, rows and columns; of an image alone one slice.
        flat: The file holds an image, not a volume.
        colour: Voxels have three channels.
    """

    shape: tuple[int, int, int]
    flat: bool
    colour: bool


class NpzVolume:
    """One file of MedSAM's or the challenge's form; opening it reads headers alone.

    Args:
        path: File with `imgs`: (H, W), (D, H, W), or either with three channels behind.
        name: Path relative to the root, for errors; by default the path.
        labels: File with `gts`: (H, W) or (D, H, W), whole numbers; None is the same file.
        labels_name: As `name`.
        spacing_order: "slice-first" or "slice-last": how `spacing` is stored.
        needs_labels: Refuse a file without `gts`. Else its truth is not known, and three axes
            are slices, rows and columns.

    Raises:
        Damaged: A file, or the shape of an array, cannot be used.
    """

    def __init__(
        self,
        path: Path,
        name: str = "",
        labels: Path | None = None,
        labels_name: str = "",
        spacing_order: str = "slice-first",
        needs_labels: bool = True,
    ) -> None:
        self.archive = Archive(path, name)
        self.truth = self.archive if labels is None else Archive(labels, labels_name)
        self.spacing_order = spacing_order
        self.labelled = needs_labels or LABELS in self.truth
        self.layout = _layout(self.archive, self.truth if self.labelled else None)

    @property
    def name(self) -> str:
        """Path of the image, for errors."""
        return self.archive.name

    @cached_property
    def spacing(self) -> tuple[float, ...] | None:
        """Millimetres between slices (of a volume), rows and columns; None where unknown.

        Raises:
            Damaged: Not positive, finite numbers, or too few of them.
        """
        source = next((one for one in (self.archive, self.truth) if "spacing" in one), None)
        if source is None:
            return None
        numbers = source.read("spacing").astype(np.float64).ravel()
        if self.spacing_order == "slice-last":
            numbers = numbers[::-1]
        if self.layout.flat and numbers.size == 3:
            numbers = numbers[1:]
        axes = 2 if self.layout.flat else 3
        if numbers.size != axes or not (np.isfinite(numbers).all() and (numbers > 0).all()):
            raise Damaged(
                source.name,
                f"must be {axes} positive numbers (mm), got {numbers.tolist()}",
                "spacing",
            )
        return tuple(float(number) for number in numbers)

    @cached_property
    def boxes(self) -> tuple[VolumeBox, ...] | None:
        """Boxes of the classes; see `read_boxes`."""
        return None if self.layout.flat else read_boxes(self.archive, self.layout.shape)

    @cached_property
    def synthetic(self) -> bool:
        """Return whether the file calls itself made up (`synthetic`, as `write_npz` stores it)."""
        return "synthetic" in self.archive and bool(self.archive.read("synthetic").any())

    def labels(self) -> np.ndarray:
        """Return the labels, (D, H, W) uint8 or uint16, read-only.

        Raises:
            Damaged: Labels that are no whole numbers from 0 on, or a damaged file.
        """
        return self._kept(LABELS, self._read_labels)

    def image(self, window: str = "", modality: str = "") -> np.ndarray:
        """Return the image as it is shown: (D, H, W) or (D, H, W, 3) uint8, read-only.

        Args:
            window: As `parse_window` reads it; "" takes the values as they are, which must lie in
                0..255.
            modality: As in `Case`.

        Raises:
            Damaged: NaN, values that are no intensities of 0..255, or a damaged file.
        """
        return self._kept(f"{IMAGE} {window}", lambda: self._read_image(window, modality))

    def case(
        self, target: str, modality: str = "", window: str = "", label: int | None = None
    ) -> VolumeCase:
        """Return the whole file as one volume; an image is a volume of one slice.

        Args:
            target: What to segment, in words.
            modality: As in `Case`.
            window: See `image`.
            label: Value of the target in the labels; None takes all that are not 0.

        Raises:
            Damaged: See `image` and `labels`; or no voxel has that label.
        """
        mask = np.zeros(self.layout.shape, bool)
        if self.labelled:
            labels = self.labels()
            mask = labels != 0 if label is None else labels == label
            if label is not None and not mask.any():
                there = ", ".join(map(str, np.unique(labels[labels > 0])[:12])) or "none"
                cause = f"has no voxel of label {label}; there are: {there}"
                raise Damaged(self.truth.name, cause, LABELS)
        elif label is not None:
            raise Damaged(self.truth.name, f"has no {LABELS!r}, so no label {label}")
        spacing = None if self.layout.flat else self.spacing
        return VolumeCase(
            self.archive.path.name,
            self.image(window, modality),
            mask,
            target,
            modality,
            (spacing[0], spacing[1], spacing[2]) if spacing else None,
            source="file",
            synthetic=self.synthetic,
            truth_known=self.labelled,
        )

    def _kept(self, what: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        stamps = tuple(
            (str(one.path), status.st_mtime_ns, status.st_size)
            for one in (self.archive, self.truth)
            for status in (one.path.stat(),)
        )

        def make() -> np.ndarray:
            array = read()
            array.flags.writeable = False
            return array

        return decoded.get((stamps, what), make, lambda array: array.nbytes)

    def _read_labels(self) -> np.ndarray:
        stored = self.truth.read(LABELS).reshape(self.layout.shape)
        labels = np.empty(stored.shape, np.uint16)
        for index, plane in enumerate(stored):
            labels[index] = whole_numbers(plane, self.truth.name, f"{LABELS}, slice {index}")
        present = np.bincount(labels.ravel())
        if np.count_nonzero(present) > MAX_DISTINCT:
            cause = f"has over {MAX_DISTINCT} distinct values: an image, not labels"
            raise Damaged(self.truth.name, cause, LABELS)
        return labels.astype(np.uint8) if present.size <= 256 else labels

    def _read_image(self, window: str, modality: str) -> np.ndarray:
        shape = (*self.layout.shape, *((3,) if self.layout.colour else ()))
        stored = self.archive.read(IMAGE).reshape(shape)
        if stored.dtype.kind == "b":
            raise Damaged(self.name, "holds truth values instead of intensities", IMAGE)
        if stored.dtype.kind == "f" and not (finite := np.isfinite(stored)).all():
            count = int(np.count_nonzero(~finite))
            cause = f"{count} of {stored.size} values are NaN or infinite (numpy.nan_to_num)"
            raise Damaged(self.name, cause, IMAGE)
        if not window:
            return _as_bytes(stored, self.name)
        with decoding(self.name, IMAGE):
            if self.layout.colour:
                raise ValueError("window= is for images of one channel")
            low, high = parse_window(window, modality).limits(
                lambda below, above: _percentiles(stored, below, above)
            )
            high = high if high > low else low + 1.0
            return np.stack([window_values(plane, low, high) for plane in stored])


def _layout(archive: Archive, truth: Archive | None) -> NpzLayout:
    image = archive.header(IMAGE)
    if truth is None:
        labels, truth = replace(image, shape=image.shape[:3]), archive
    else:
        labels = truth.header(LABELS)
    for header, name, array in ((image, archive.name, IMAGE), (labels, truth.name, LABELS)):
        if header.dtype.hasobject:
            raise Damaged(name, "holds pickled objects, which are never loaded", array)
    colour = image.shape == (*labels.shape, 3)
    if len(labels.shape) not in (2, 3) or not (colour or image.shape == labels.shape):
        raise Damaged(
            archive.name,
            f"{IMAGE} is {_text(image)} and {LABELS} is {_text(labels)}; both must be (H, W) or "
            f"(D, H, W), and {IMAGE} may have three channels behind",
        )
    check_voxels(labels.shape, truth.name, LABELS)
    flat = len(labels.shape) == 2
    depth, height, width = (1, *labels.shape) if flat else labels.shape
    return NpzLayout((depth, height, width), flat, colour)


def _as_bytes(stored: np.ndarray, name: str) -> np.ndarray:
    if stored.dtype == np.uint8:
        return stored
    low, high = float(stored.min()), float(stored.max())
    if low < 0 or high > 255:
        raise Damaged(
            name,
            f"has intensities {low:g}..{high:g}, outside of 0..255; window=LOW,HIGH (or "
            "percentiles, soft, lung, ...) says how they are shown",
            IMAGE,
        )
    if stored.dtype.kind == "f" and 0 < high <= 1 and (stored != np.rint(stored)).any():
        raise Damaged(name, "has intensities 0..1; window=0,1 shows them as 0..255", IMAGE)
    shown: np.ndarray = np.rint(stored).astype(np.uint8)
    return shown


def _percentiles(stored: np.ndarray, low: float, high: float) -> tuple[float, float]:
    values = stored[stored != 0]
    if not values.size:
        return 0.0, 0.0
    limits = np.percentile(values, [low, high])
    return float(limits[0]), float(limits[1])


def _text(header: ArrayHeader) -> str:
    return f"({', '.join(map(str, header.shape))})"
