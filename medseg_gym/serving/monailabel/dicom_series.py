"""DICOM series of a folder by SeriesInstanceUID, which is how OHIF names images."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from medseg_gym.serving.errors import ServiceError


class DicomSeries:
    """Series below a folder, each put together as a NRRD when it is first asked for.

    The files are read by SimpleITK: slices by their position, grey values rescaled. The NRRDs lie
    in a temporary folder that goes with this object.

    Args:
        root: Folders below it are looked into, those called "labels" and hidden ones aside.
        max_voxels: Most of one series.
    """

    def __init__(self, root: Path, max_voxels: int) -> None:
        self._root, self._max_voxels = root, max_voxels
        self._known: dict[Path, tuple[int, dict[str, tuple[str, ...]]]] = {}
        self._made = TemporaryDirectory(prefix="medseg-series-")

    def ids(self) -> dict[str, Path]:
        """Return the folders by SeriesInstanceUID; of one that two folders hold, the first."""
        folders: dict[str, Path] = {}
        for folder in self._folders():
            for id in self._series_of(folder):
                folders.setdefault(id, folder)
        return folders

    def image(self, id: str, folder: Path) -> Path:
        """Return the NRRD of a series.

        Args:
            id: SeriesInstanceUID.
            folder: Of its files, from `ids`.

        Raises:
            ServiceError: 422 where it is no volume of grey values, 413 where it is too large.
        """
        path = Path(self._made.name, f"{id}.nrrd")
        if not path.is_file():
            self._write(path, id, self._series_of(folder)[id])
        return path

    def _write(self, path: Path, id: str, files: tuple[str, ...]) -> None:
        import SimpleITK

        header = SimpleITK.ImageFileReader()
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(files)
        try:
            places = []
            for file in files:
                header.SetFileName(file)
                header.ReadImageInformation()
                places.append(header.GetOrigin())
            voxels = math.prod(header.GetSize()[:2]) * len(files)
            if header.GetNumberOfComponents() > 1 or len(files) < 2:
                raise ServiceError(f"series {id[:80]!r} is no volume of grey values")
            if voxels > self._max_voxels:
                raise ServiceError(
                    f"series {id[:80]!r} has {voxels} voxels, and {self._max_voxels} are taken", 413
                )
            gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
            if gaps.min() < 0.99 * gaps.max():  # ITK would put them side by side all the same
                raise ServiceError(
                    f"series {id[:80]!r}: neighbouring slices are {gaps.min():.3g} to "
                    f"{gaps.max():.3g} mm apart; one is missing, damaged or there twice"
                )
            unfinished = path.with_name(f"unfinished-{path.name}")
            SimpleITK.WriteImage(reader.Execute(), str(unfinished))
        except RuntimeError as error:  # ITK's own
            reason = str(error).strip().splitlines()[-1]
            raise ServiceError(f"series {id[:80]!r} cannot be read: {reason[:200]}") from error
        unfinished.replace(path)

    def _folders(self) -> list[Path]:
        places = [self._root]
        for path in sorted(self._root.rglob("*")):
            inside = path.relative_to(self._root).parts
            if path.is_dir() and inside[0] != "labels" and not any(p[0] == "." for p in inside):
                places.append(path)
        return places

    def _series_of(self, folder: Path) -> dict[str, tuple[str, ...]]:
        import SimpleITK

        changed = folder.stat().st_mtime_ns
        if self._known.get(folder, (0, {}))[0] != changed:
            reader = SimpleITK.ImageSeriesReader
            ids = reader.GetGDCMSeriesIDs(str(folder))
            files = {id: tuple(reader.GetGDCMSeriesFileNames(str(folder), id)) for id in ids}
            self._known[folder] = changed, files
        return self._known[folder][1]
