"""Scan of an image and its labels for the index: grid, spacing, areas, defects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import Damaged, Defect, read_json
from medseg_gym.cases.nifti.areas import LabelAreas, label_areas
from medseg_gym.cases.nifti.labels import Target, segment_targets
from medseg_gym.cases.volumes import ResampledLabels, Volume, fit_labels


@dataclass
class Scan:
    """One pass over an image's header and its labels' voxels.

    Args:
        defects: Why the pair cannot be used; then the rest is empty. Or notes.
        slices: How many there are.
        size: (H, W) of a slice.
        spacing: Millimetres per pixel (row, column) of a slice.
        channels: Of the image.
        layers: Channels of the labels.
        background: See `LabelAreas`.
        disjoint: See `LabelAreas`.
        areas: (channel of the labels, value) -> slice -> pixels.
        segments: Targets that the label file itself names.
        modality: The word of a sidecar ("MR"), or "".
    """

    defects: list[Defect] = field(default_factory=list)
    slices: int = 0
    size: tuple[int, int] = (0, 0)
    spacing: tuple[float, float] = (0.0, 0.0)
    channels: int = 1
    layers: int = 1
    background: bool = False
    disjoint: bool = True
    areas: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    segments: tuple[Target, ...] = ()
    modality: str = ""

    @property
    def usable(self) -> bool:
        """Return whether the pair has no defects but notes."""
        return all(defect.note for defect in self.defects)

    @property
    def labelled(self) -> set[int]:
        """Slices that show a label, be it a small one."""
        return {
            index
            for (channel, _), by_slice in self.areas.items()
            if channel or not self.background
            for index in by_slice
        }

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {
            "defects": [defect.as_dict() for defect in self.defects],
            "slices": self.slices,
            "size": self.size,
            "spacing": self.spacing,
            "channels": self.channels,
            "layers": self.layers,
            "background": self.background,
            "disjoint": self.disjoint,
            "areas": [
                [channel, value, list(by_slice), list(by_slice.values())]
                for (channel, value), by_slice in self.areas.items()
            ],
            "segments": [[t.name, t.parts] for t in self.segments],
            "modality": self.modality,
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Scan:
        """Return what `as_json` wrote."""
        return cls(
            [Defect(**defect) for defect in saved["defects"]],
            saved["slices"],
            (saved["size"][0], saved["size"][1]),
            (saved["spacing"][0], saved["spacing"][1]),
            saved["channels"],
            saved["layers"],
            saved["background"],
            saved["disjoint"],
            {
                (channel, value): dict(zip(slices, pixels, strict=True))
                for channel, value, slices, pixels in saved["areas"]
            },
            tuple(
                Target(name, tuple((channel, value) for channel, value in parts))
                for name, parts in saved["segments"]
            ),
            saved["modality"],
        )


def scan_pair(
    image: Path,
    image_name: str,
    label: Path,
    label_name: str,
    axis: str,
    sidecar: Path,
    resample: str = "off",
) -> Scan:
    """Read the header of an image, and its labels.

    Args:
        image: The image.
        image_name: Its path relative to the root.
        label: Its labels.
        label_name: Their path relative to the root.
        axis: The way slices are cut.
        sidecar: A JSON file that may lie beside the image, as dcm2niix and BIDS have it.
        resample: As the option of `NiftiFormat`.

    Returns:
        What was found; `defects` says what cannot be used.
    """
    scan = Scan()
    volumes = []
    for path, name in ((image, image_name), (label, label_name)):
        try:
            volumes.append(Volume(path, axis, name))
        except Damaged as error:
            scan.defects.append(error.defect)
    if len(volumes) < 2:
        return scan
    volume, labels = volumes
    try:
        labels = fit_labels(volume, labels, resample)
        if isinstance(labels, ResampledLabels):
            scan.defects.extend(labels.notes())
        segments = segment_targets(labels.header.segments)
        areas = label_areas(labels)
        if labels.header.channels > 1 and not segments:
            require_one_value(areas, labels)
    except Damaged as error:
        scan.defects.append(error.defect)
        return scan
    if areas.rounded:
        cause = (
            f"{areas.rounded} values are rounded to whole numbers, the first is {areas.example:.9g}"
        )
        scan.defects.append(Defect(label_name, cause, areas.place, note=True))
    scan.slices, scan.size, scan.spacing = len(volume), volume.plane_shape, volume.spacing
    scan.channels, scan.segments = volume.header.channels, segments
    scan.layers, scan.areas = labels.header.channels, areas.areas
    scan.background, scan.disjoint = areas.background, areas.disjoint
    scan.modality = _sidecar_modality(sidecar)
    return scan


def require_one_value(areas: LabelAreas, labels: Volume) -> None:
    """Refuse channels that hold several labels: then they are no targets, but label maps.

    Raises:
        Damaged: Such a channel.
    """
    for channel in range(labels.header.channels):
        values = [str(value) for at, value in areas.areas if at == channel]
        if len(values) > 1:
            raise Damaged(
                labels.name,
                f"has {labels.header.channels} values per voxel, and channel {channel} holds the "
                f"labels {', '.join(values[:4])}{', ...' if len(values) > 4 else ''}: of several "
                "channels each must be one target (0 and one other value); store several label "
                "maps (time steps, raters) as a file each",
            )


def _sidecar_modality(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        content = read_json(path, path.name)
    except Damaged:
        return ""  # somebody else's file: not needed, so not a defect
    code = content.get("Modality") if isinstance(content, dict) else None
    return code if isinstance(code, str) else ""
