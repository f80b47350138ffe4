"""Image files as volume cases: windowed to grey values, kept while there is room."""

from __future__ import annotations

from pathlib import Path

from medseg_gym.cases.files import ByteCache
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volumes import AXES, longest_axis, parse_window, view_of
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.errors import CaseError
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.monailabel.image_files import open_header, without_path

CASE_BYTES = 1 << 30
"""Bytes of cases that are kept for the next request on the same image."""


class ScanReader:
    """Reads image files as cases.

    Args:
        max_voxels: Most that are taken of one image.
    """

    def __init__(self, max_voxels: int) -> None:
        self.max_voxels = max_voxels
        self._cases = ByteCache(CASE_BYTES)

    def read(
        self, path: Path, shown: str, window: str, flat: bool, allowance: Allowance
    ) -> VolumeCase:
        """Read an image; a second request on the same file gets the same case.

        Args:
            path: The file.
            shown: Its name in messages.
            window: As `parse_window` reads it.
            flat: Cut it along the file's third axis, as clients number slices; else along the axis
                of the largest spacing.
            allowance: Counts its voxels while the request lasts.

        Raises:
            ServiceError: The file cannot be used, or is too large.
        """
        header = open_header(path, shown, self.max_voxels).header
        try:
            parse_window(window, "")
        except CaseError as error:
            raise ServiceError(str(error)) from error
        shape, affine = header.shape, header.affine
        axis = longest_axis(shape, affine)
        if flat:
            axis = next(one for one in AXES if view_of(shape, affine, one).order[0] == 2)
        allowance.take_values(int(shape[0]) * int(shape[1]) * int(shape[2]))
        stat = path.stat()

        def make() -> VolumeCase:
            try:
                return read_volume_file(path, "target", None, "", window, axis)
            except CaseError as error:
                raise ServiceError(without_path(str(error), path, shown)) from error

        key = (str(path), stat.st_mtime_ns, stat.st_size, window, axis)
        return self._cases.get(key, make, lambda case: int(case.image.nbytes))
