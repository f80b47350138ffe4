"""What the index remembers of an image and its labels: grid, spacing, areas, or what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_gym.cases.files import Damaged, Defect, read_json
from medseg_gym.cases.nifti.areas import label_areas
from medseg_gym.cases.nifti.labels import Target, segment_targets
from medseg_gym.cases.volumes import ResampledLabels, Volume, fit_labels


@dataclass
class Scan:
    """One pass over an image's header and its labels' voxels.

    Args:
        defects: Why the pair cannot be used; then the rest is empty.
        notes: What was done to the labels, and what of them is left out.
        size: (H, W) of a slice.
        spacing: Millimetres per pixel (row, column) of a slice.
        channels: Of the image.
        areas: (channel of the labels, value) -> slice -> pixels.
        segments: Targets that the label file itself names.
        modality: The word of a sidecar ("MR"), or "".
    """

    defects: list[Defect] = field(default_factory=list)
    notes: list[Defect] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    spacing: tuple[float, float] = (0.0, 0.0)
    channels: int = 1
    areas: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    segments: tuple[Target, ...] = ()
    modality: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return {
            "defects": [defect.as_dict() for defect in self.defects],
            "notes": [note.as_dict() for note in self.notes],
            "size": self.size,
            "spacing": self.spacing,
            "channels": self.channels,
            "areas": [
                [channel, value, list(by_slice), list(by_slice.values())]
                for (channel, value), by_slice in self.areas.items()
            ],
            "segments": [[t.name, t.values, t.channel] for t in self.segments],
            "modality": self.modality,
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Scan:
        """Return what `as_json` wrote."""
        return cls(
            [Defect(**defect) for defect in saved["defects"]],
            [Defect(**note) for note in saved["notes"]],
            (saved["size"][0], saved["size"][1]),
            (saved["spacing"][0], saved["spacing"][1]),
            saved["channels"],
            {
                (channel, value): dict(zip(slices, pixels, strict=True))
                for channel, value, slices, pixels in saved["areas"]
            },
            tuple(Target(name, tuple(values), at) for name, values, at in saved["segments"]),
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
        resample: As the option of `NiftiLayout`.

    Returns:
        What was found; `defects` says what cannot be used.
    """
    found = Scan()
    volumes = []
    for path, name in ((image, image_name), (label, label_name)):
        try:
            volumes.append(Volume(path, axis, name))
        except Damaged as error:
            found.defects.append(error.defect)
    if len(volumes) < 2:
        return found
    picture, labels = volumes
    try:
        labels = fit_labels(picture, labels, resample)
        if isinstance(labels, ResampledLabels):
            found.notes.extend(labels.notes())
        segments = segment_targets(labels.header.segments)
        if labels.header.channels > 1 and not segments:
            raise Damaged(
                label_name,
                f"has {labels.header.channels} values per voxel; labels must have one",
            )
        for channel in range(labels.header.channels):
            for value, by_slice in label_areas(labels, channel).items():
                found.areas[channel, value] = by_slice
    except Damaged as error:
        found.defects.append(error.defect)
        return found
    found.size, found.spacing = picture.plane_shape, picture.spacing
    found.channels, found.segments = picture.header.channels, segments
    found.modality = _sidecar_modality(sidecar)
    return found


def _sidecar_modality(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        content = read_json(path, path.name)
    except Damaged:
        return ""  # somebody else's file: not needed, so not a defect
    code = content.get("Modality") if isinstance(content, dict) else None
    return code if isinstance(code, str) else ""
