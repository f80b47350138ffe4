"""A scan from a volume file as a `VolumeCase`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes.geometry import VolumeGeometry, longest_axis
from medseg_gym.cases.volumes.resampling import ResampledLabels, fit_labels
from medseg_gym.cases.volumes.volume import Volume
from medseg_gym.cases.volumes.whole_numbers import whole_numbers
from medseg_gym.cases.volumes.windows import Window, parse_window, show
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
    left_out: dict[str, int] | None = None,
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
        left_out: Counts of what was left out by reason, added to.

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
                volume.name,
                f"has {count} volumes along a fourth axis; choose one with channel=0 in a spec, "
                "--channel 0 in `medseg run`",
            )
        channel = 0
    image = show_volume(volume, parse_window(window, modality), channel)
    mask = np.zeros(volume.view.shape, bool)
    if truth is not None:
        labels = fit_labels(volume, Volume(truth, axis), resample)
        if labels.header.channels > 1:
            raise Damaged(
                labels.name,
                f"has {labels.header.channels} channels (layers, or volumes along a fourth axis); "
                "give the labels as one channel",
            )
        for index, plane in enumerate(mask):
            values = whole_numbers(labels.plane(index), labels.name, f"slice {index}")
            plane[:] = values != 0 if value is None else values == value
        if left_out is not None and isinstance(labels, ResampledLabels):
            for note in labels.notes():
                reason = note.reason or "label files carried over to another grid"
                left_out[reason] = left_out.get(reason, 0) + (note.left_out or 1)
    return VolumeCase(
        path.name,
        image,
        mask,
        target,
        modality,
        volume.view.spacing,
        source="file",
        truth_known=truth is not None,
        geometry=geometry_of(volume),
    )


def show_volume(
    volume: Volume,
    window: Window,
    channel: int = 0,
    mend: Callable[[np.ndarray], np.ndarray] = lambda plane: plane,
) -> np.ndarray:
    """Show all slices of a volume.

    Args:
        volume: The file.
        window: Intensities shown black and white.
        channel: Volume along a fourth axis.
        mend: Replaces pixels of a slice that are not finite, or raises CaseError.

    Returns:
        (D, H, W) uint8.

    Raises:
        Damaged: A damaged file, or NaN or infinite pixels.
    """
    low, high = window.limits(lambda a, b: volume.percentiles(a, b, channel))
    image = np.empty(volume.view.shape, np.uint8)
    for index in range(len(volume)):
        plane = volume.plane(index, channel)
        if plane.size and (plane == plane.flat[0]).all() and np.isfinite(plane.flat[0]):
            # A slice without anything in it is ordinary at the ends of a scan.
            shade = (float(plane.flat[0]) - low) / max(high - low, 1e-9)
            image[index] = np.uint8(255 * min(max(shade, 0.0), 1.0))
            continue
        try:
            image[index] = show(mend(plane), low, high)[:, :, 0]
        except CaseError as error:
            raise Damaged(volume.name, str(error), f"slice {index}") from error
    return image


def geometry_of(volume: Volume) -> VolumeGeometry:
    """Return the grid of a volume file, for writing masks back."""
    return VolumeGeometry(volume.header.shape, volume.header.affine, volume.view, volume.path)
