"""A volume on disk: its header, read at once, and its slices in the radiological view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medseg_gym.cases.files import ByteCache, Damaged, decoding, require_file
from medseg_gym.cases.volumes import itk_file, nifti_file
from medseg_gym.cases.volumes.header import MAX_DECODED, VolumeHeader
from medseg_gym.cases.volumes.orientation import View, view_of
from medseg_gym.errors import CaseError

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
SUFFIXES = (".nii.gz", ".nii", *ITK_SUFFIXES)

CACHE_BYTES = 1 << 30
decoded = ByteCache(CACHE_BYTES)
"""Decoded volumes of the process: room for two CT of 512 x 512 x 900 voxels with their labels."""

_huge = ByteCache(MAX_DECODED)  # what is larger: without it every slice would be a decoding

_SAMPLED = 1 << 26  # voxels that intensity percentiles are taken from, at most


def volume_suffix(name: str) -> str:
    """Return the ending of a file name that makes it a volume (".nii.gz", say), or ""."""
    return next((s for s in SUFFIXES if name.lower().endswith(s)), "")


class Volume:
    """A volume file; opening it reads the header alone.

    Args:
        path: A file with one of `SUFFIXES`.
        axis: "axial", "coronal" or "sagittal": the way slices are cut.
        name: Path relative to the root of the data, for errors; by default the path.
        cache: Where decoded voxels are kept; by default the one of the process.

    Raises:
        Damaged: The header cannot be used.
    """

    def __init__(
        self, path: Path, axis: str = "axial", name: str = "", cache: ByteCache | None = None
    ) -> None:
        self.path, self.axis, self.name = Path(path), axis, name or str(path)
        self._cache = decoded if cache is None else cache
        require_file(path, self.name)
        with self._naming():
            suffix = volume_suffix(self.path.name)
            if not suffix:
                raise CaseError(f"is no volume: its name ends in none of {', '.join(SUFFIXES)}")
            self._file = itk_file if suffix in ITK_SUFFIXES else nifti_file
            stat = self.path.stat()
            self._stamp: tuple = (str(self.path), stat.st_mtime_ns, stat.st_size)
            self.header: VolumeHeader = self._file.read_header(self.path)
            self.view: View = view_of(self.header.shape, self.header.affine, axis)

    def __len__(self) -> int:
        return self.view.shape[0]

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.view.shape[1], self.view.shape[2]

    @property
    def spacing(self) -> tuple[float, float]:
        """Millimetres per pixel of a slice (row, column)."""
        return self.view.spacing[1], self.view.spacing[2]

    def distance(self, other: Volume) -> float | None:
        """Return the largest distance of corners of two volumes, in mm, as their slices are shown.

        Args:
            other: A volume cut along the same axis.

        Returns:
            None where they have different numbers of slices, rows or columns.
        """
        if self.view.shape != other.view.shape:
            return None
        own, others = (v.view.corners(v.header.affine) for v in (self, other))
        return float(np.linalg.norm(own - others, axis=1).max())

    def plane(self, index: int, channel: int = 0) -> np.ndarray:
        """Return slice `index`, with the file's scaling applied.

        An uncompressed NIfTI is read at that slice; other files are decoded once and kept as long
        as the cache has room.

        Returns:
            (H, W) array: as stored, or float64 where the file scales its voxels.

        Raises:
            Damaged: The file is damaged, or there is no such slice or channel.
        """
        if not 0 <= index < len(self):
            raise Damaged(self.name, f"has no {self.axis} slice {index}; it has {len(self)}")
        self._check_channel(channel)
        voxel_axis, stored_index = self.view.order[0], self.view.stored_index(index)
        header = self.header
        if self._file is nifti_file and not header.compressed:
            with self._naming(f"slice {index}"):
                stored = nifti_file.read_slice(header, voxel_axis, stored_index, channel)
        else:
            place: list[slice | int] = [slice(None)] * 3
            place[voxel_axis] = stored_index
            stored = self._decoded(channel)[tuple(place)]
        return header.scaled(self.view.plane(stored))

    def voxels(self, channel: int = 0) -> np.ndarray:
        """Return all slices, (D, H, W), with the file's scaling applied.

        Raises:
            Damaged: The file is damaged or there is no such channel.
        """
        stored = self._decoded(channel).transpose(self.view.order)
        flips = tuple(slice(None, None, -1 if flip else 1) for flip in self.view.flips)
        return self.header.scaled(stored[flips])

    def percentiles(self, low: float, high: float, channel: int = 0) -> tuple[float, float]:
        """Return percentiles of the finite voxels that are not zero; (0, 0) where there is none.

        Of volumes with more than 2**26 voxels every n-th slice is looked at. Computed once per
        file, as the cache keeps them.

        Raises:
            Damaged: The file is damaged.
        """
        key = ("percentiles", self._stamp, low, high, channel)
        return self._cache.get(key, lambda: self._percentiles(low, high, channel), lambda _: 64)

    def _percentiles(self, low: float, high: float, channel: int) -> tuple[float, float]:
        step = -(-int(np.prod(self.header.shape)) // _SAMPLED)
        if step == 1:
            values = self.header.scaled(self._decoded(channel).ravel(order="K"))
        else:
            planes = [self.plane(i, channel).ravel() for i in range(0, len(self), step)]
            values = np.concatenate(planes)
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        values = values[values != 0]
        if not values.size:
            return 0.0, 0.0
        limits = np.percentile(values, [low, high])
        return float(limits[0]), float(limits[1])

    def _decoded(self, channel: int) -> np.ndarray:
        self._check_channel(channel)

        def decode() -> np.ndarray:
            with self._naming():
                array: np.ndarray = self._file.read_volume(self.header, channel)
            array.flags.writeable = False
            return array

        return self._room().get((self._stamp, channel), decode, lambda array: array.nbytes)

    def _room(self) -> ByteCache:
        return self._cache if self.header.nbytes <= self._cache.limit else _huge

    def _check_channel(self, channel: int) -> None:
        if not 0 <= channel < self.header.channels:
            raise Damaged(self.name, f"has no channel {channel}; it has {self.header.channels}")

    @contextmanager
    def _naming(self, place: str = "") -> Iterator[None]:
        """Name the file in what the readers raise."""
        try:
            with decoding(self.name, place):
                yield
        except Damaged:
            raise
        except CaseError as error:
            raise Damaged(self.name, str(error), place) from error
