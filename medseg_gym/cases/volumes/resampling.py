"""Carry labels over to the grid of their image: every pixel takes the label nearest to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from medseg_gym.cases.files import Damaged, Defect
from medseg_gym.cases.volumes.grids import WAY_OUT, Grid, name_grids
from medseg_gym.cases.volumes.volume import Volume

RESAMPLING = ("off", "nearest")
"""Values of the option `resample`; "off" refuses labels on another grid."""


def nearest(
    labels: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    onto: np.ndarray,
    background: float = 0,
) -> np.ndarray:
    """Sample labels at the voxels of another grid, by SimpleITK's nearest neighbour.

    Args:
        labels: (I, J, K) array of any real type.
        affine: (4, 4) float, its voxel indices to mm.
        shape: Voxels of the other grid.
        onto: (4, 4) float, its voxel indices to mm in the same frame.
        background: Value of voxels that lie outside of the labels, by more than half a voxel.

    Returns:
        Array of `shape` and the type of `labels`; bool becomes uint8.
    """
    import SimpleITK

    kind = np.dtype(np.uint8) if labels.dtype == bool else labels.dtype.newbyteorder("=")
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(labels.T, kind))
    origin, spacing, direction = _geometry(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    origin, spacing, direction = _geometry(onto)
    sampled = SimpleITK.Resample(
        image,
        [int(n) for n in shape],
        SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor,
        origin,
        spacing,
        direction,
        float(background),
        image.GetPixelID(),
    )
    return SimpleITK.GetArrayFromImage(sampled).T


def _geometry(affine: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Return origin, spacing and direction (by rows) as ITK has them."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / lengths
    return affine[:3, 3].tolist(), lengths.tolist(), directions.ravel().tolist()


class ResampledLabels(Volume):
    """A label volume as seen on the grid of its image.

    Args:
        labels: The labels.
        image: The image, cut along the same axis.

    Raises:
        Damaged: They do not overlap.
    """

    def __init__(self, labels: Volume, image: Volume) -> None:
        self.path, self.axis, self.name = labels.path, labels.axis, labels.name
        self._cache, self._file, self._labels = labels._cache, labels._file, labels
        self.view = image.view
        self.header = replace(
            labels.header,
            shape=image.header.shape,
            affine=image.header.affine,
            compressed=True,  # its voxels are never read from the file slice by slice
        )
        self._to_image = np.linalg.inv(image.header.affine) @ labels.header.affine
        self._stamp = (*labels._stamp, image.header.shape, image.header.affine.tobytes())
        self._grids = grids_of(labels, image)
        if not self._overlap():
            raise Damaged(
                labels.name,
                f"does not overlap its image {image.name!r} anywhere: {self._grids}",
            )

    def notes(self) -> Iterator[Defect]:
        """Say that the labels were carried over, and what of them has no pixel on the new grid.

        Raises:
            Damaged: The file is damaged.
        """
        yield Defect(self.name, f"labels carried over to another grid: {self._grids}", note=True)
        for channel in range(self.header.channels):
            if self._is_background(channel):
                continue
            if outside := self._outside(channel):
                reason = "labelled voxels that lie outside of the image"
                yield Defect.counting(self.name, reason, outside)
            before, after = (_values(v._decoded(channel)) for v in (self._labels, self))
            if lost := sorted(before - after - {self._zero}):
                values = ", ".join(f"{self.header.scaled(np.array(v)):g}" for v in lost[:5])
                reason = "labels without a voxel on the grid of the image"
                place = f"label {values}{', ...' if lost[5:] else ''}"
                yield Defect.counting(self.name, reason, len(lost), place)

    def _outside(self, channel: int) -> int:
        """Count labelled voxels of the file whose centres lie outside of the image."""
        stored = self._labels._decoded(channel)
        outside = 0
        shape = np.array(self.header.shape)[:, None]
        for k in range(stored.shape[2]):
            i, j = np.nonzero(stored[:, :, k] != self._zero)
            places = self._to_image @ np.stack([i, j, np.full_like(i, k), np.ones_like(i)])
            inside = (places[:3] >= -0.5) & (places[:3] < shape - 0.5)
            outside += i.size - int(np.count_nonzero(inside.all(axis=0)))
        return outside

    def _is_background(self, channel: int) -> bool:
        """Return whether a channel stands for what no other one labels, as in one-hot coding."""
        if channel or self.header.channels < 2:
            return False
        labelled = [self._labels._decoded(c) != self._zero for c in range(self.header.channels)]
        return bool((np.logical_or.reduce(labelled[1:]) != labelled[0]).all())

    def _overlap(self) -> bool:
        """Return whether the box of the labels, in voxels of the image, reaches into the image."""
        counts = self._labels.header.shape
        ends = np.array([[b >> axis & 1 for axis in range(3)] for b in range(8)])
        corners = ends * np.array(counts) - 0.5
        places = (self._to_image @ np.c_[corners, np.ones(8)].T)[:3]
        shape = np.array(self.header.shape)
        return bool((places.max(axis=1) > -0.5).all() and (places.min(axis=1) < shape - 0.5).all())

    def _decoded(self, channel: int) -> np.ndarray:
        self._check_channel(channel)

        def resample() -> np.ndarray:
            stored = self._labels._decoded(channel)
            labels = self._labels.header
            beyond = stored.max() if self._is_background(channel) else self._zero
            with self._naming():
                sampled = nearest(
                    stored, labels.affine, self.header.shape, self.header.affine, float(beyond)
                )
            sampled.flags.writeable = False
            return sampled

        return self._room().get((self._stamp, channel), resample, lambda array: array.nbytes)

    @property
    def _zero(self) -> float:
        """Return the stored number that stands for 0."""
        zero = -self.header.intercept / (self.header.slope or 1.0)
        return round(zero) if self.header.dtype.kind in "iub" else zero


def _values(stored: np.ndarray) -> set:
    return {value for plane in stored.T for value in np.unique(plane).tolist()}


def fit_labels(image: Volume, labels: Volume, resample: str = "off") -> Volume:
    """Return labels on the grid of their image.

    Args:
        image: The image.
        labels: Its labels, cut along the same axis.
        resample: One of `RESAMPLING`.

    Returns:
        `labels` where the grids agree (the order and direction of voxel axes may differ), else
        the labels carried over.

    Raises:
        Damaged: Another grid, and `resample` is "off", or the two do not overlap.
    """
    apart = labels.distance(image)
    if apart is not None and apart <= TOLERANCE * min(image.view.spacing):
        return labels
    if resample == "nearest":
        return ResampledLabels(labels, image)
    advice = f"{grids_of(labels, image)}; {WAY_OUT}"
    if apart is None:
        raise Damaged(labels.name, f"has another grid than its image {image.name!r}: {advice}")
    raise Damaged(
        labels.name,
        f"lies up to {apart:.3g} mm away from its image {image.name!r}: {advice}; or copy its "
        "affine if that is the mistake",
    )


TOLERANCE = 0.1
"""Largest distance between equal corners of one grid, in voxel edges."""


def grids_of(labels: Volume, image: Volume) -> str:
    """Describe both grids, as their slices are shown."""
    return name_grids(grid_of(labels), grid_of(image))


def grid_of(volume: Volume) -> Grid:
    """Return the grid of a volume in the order of its view."""
    view, affine = volume.view, volume.header.affine
    signs = np.where(view.flips, -1.0, 1.0)
    directions = affine[:3, list(view.order)] * signs / np.array(view.spacing)
    return Grid(view.shape, view.spacing, view.corners(affine)[0], directions.T)
