"""A scan from a volume file as a `VolumeCase`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes.geometry import VolumeGeometry, longest_axis
from medseg_gym.cases.volumes.resampling import fit_labels
from medseg_gym.cases.volumes.volume import Volume
from medseg_gym.cases.volumes.windows import parse_window, show
from medseg_gym.errors import CaseError


def read_volume_file(
    path: Path,
    target: str,
    truth: Path | None = None,
    modality: str = "",
    window: str = "",
    axis: str = "auto",
    channel: int | None = None,
    value: int | None = None,
    resample: str = "off",
) -> VolumeCase:
    """Read a scan from NIfTI, NRRD or MetaImage.

    Args:
        path: The file.
        target: What to segment, in words.
        truth: Label file; None leaves the truth unknown.
        modality: As in `Case`.
        window: As `parse_window` reads it.
        axis: "axial", "coronal", "sagittal", or "auto", the one of the largest spacing.
        channel: Volume along a fourth axis; needed where there are several.
        value: Label value of the target; None takes all that are not zero.
        resample: "nearest" carries labels on another grid over; "off" refuses them.

    Raises:
        CaseError: A file or an option that cannot be used.
    """
    volume = Volume(path)
    if axis == "auto":
        axis = longest_axis(volume.header.shape, volume.header.affine)
    if axis != volume.axis:
        volume = Volume(path, axis)
    if channel is None:
        if volume.header.channels > 1:
            count = volume.header.channels
            raise Damaged(
                volume.name, f"has {count} volumes along a fourth axis; choose one with channel=0"
            )
        channel = 0
    limits = parse_window(window, modality)
    low, high = limits.limits(lambda a, b: volume.percentiles(a, b, channel or 0))
    image = np.empty(volume.view.shape, np.uint8)
    for index in range(len(volume)):
        plane = volume.plane(index, channel)
        if plane.size and (plane == plane.flat[0]).all() and np.isfinite(plane.flat[0]):
            # A slice without anything in it is ordinary at the ends of a scan.
            shade = (float(plane.flat[0]) - low) / max(high - low, 1e-9)
            image[index] = np.uint8(255 * min(max(shade, 0.0), 1.0))
            continue
        try:
            image[index] = show(plane, low, high)[:, :, 0]
        except CaseError as error:
            raise Damaged(volume.name, str(error), f"slice {index}") from error
    mask = np.zeros(volume.view.shape, bool)
    if truth is not None:
        labels = fit_labels(volume, Volume(truth, axis), resample)
        values = labels.voxels()
        mask = np.ascontiguousarray(values != 0 if value is None else values == value)
    return VolumeCase(
        path.name,
        image,
        mask,
        target,
        modality,
        volume.view.spacing,
        source="file",
        truth_known=truth is not None,
        geometry=VolumeGeometry(volume.header.shape, volume.header.affine, volume.view, path),
    )
