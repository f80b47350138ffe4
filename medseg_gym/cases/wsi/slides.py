"""Open whole slides by openslide or tiffslide, and read regions at a resolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from medseg_gym.cases.files.access.guards import check_pixels, require_file
from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.errors import CaseError

SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".qptiff"),
    *(".mrxs", ".vms", ".vmu"),  # no TIFFs: openslide alone
)


def require_reader() -> None:
    """Refuse to go on without openslide and tiffslide.

    Raises:
        CaseError: Neither is installed.
    """
    if not _libraries():
        raise CaseError(
            "wsi: needs openslide; pip install 'medseg-gym[wsi]' (tiffslide serves too, for slides "
            "that are TIFFs)"
        )


class Slide:
    """An open slide.

    Args:
        handle: Of tiffslide or openslide, which have the same methods.
        name: Path relative to the root, for errors.
    """

    def __init__(self, handle: Any, name: str) -> None:
        self._handle, self.name = handle, name
        width, height = handle.dimensions
        self.size = (int(height), int(width))
        """(H, W) at full resolution."""
        self.mpp = self._micrometres()

    def _micrometres(self) -> float | None:
        """Micrometres a pixel at full resolution, where both sides agree on them."""
        properties = self._handle.properties
        sides = []
        for axis in "xy":
            keys = (f"tiffslide.mpp-{axis}", f"openslide.mpp-{axis}")
            value = next((properties[k] for k in keys if properties.get(k) is not None), None)
            try:
                sides.append(float(value))  # type: ignore[arg-type]
            except (TypeError, ValueError):
                return None
        x, y = sides
        return x if 0 < x < math.inf and abs(x - y) < 0.01 * x else None

    def downsample(self, level: int, mpp: float | None) -> float:
        """Return how many pixels of full resolution a pixel of a tile stands for.

        Args:
            level: Of the pyramid, where `mpp` is None.
            mpp: Micrometres a pixel that are asked for.

        Raises:
            Damaged: The slide has no such level, or does not say its resolution.
        """
        if mpp is not None:
            if self.mpp is None:
                raise Damaged(self.name, "does not say its micrometres a pixel; give level=")
            if mpp < 0.5 * self.mpp:
                raise Damaged(self.name, f"has {self.mpp:g} micrometres a pixel, not mpp={mpp:g}")
            return mpp / self.mpp
        levels = self._handle.level_downsamples
        if level >= len(levels):
            raise Damaged(self.name, f"has {len(levels)} levels; level={level} is none of them")
        return float(levels[level])

    def region(self, left: int, top: int, height: int, width: int, downsample: float) -> np.ndarray:
        """Read a tile.

        Args:
            left: At full resolution.
            top: Likewise.
            height: Rows of the tile.
            width: Columns.
            downsample: From `downsample`.

        Returns:
            (H, W, 3) uint8.

        Raises:
            Damaged: It cannot be decoded.
        """
        place = f"tile at ({left}, {top})"
        with decoding(self.name, place):
            level = self._handle.get_best_level_for_downsample(downsample + 1e-6)
            factor = downsample / float(self._handle.level_downsamples[level])
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            check_pixels(size[1], size[0], self.name, place)
            image = self._handle.read_region((left, top), level, size)
            if image.mode == "RGBA":  # openslide: beyond the scanned area all is transparent
                white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                image = Image.alpha_composite(white, image)
            image = image.convert("RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BOX)
            return np.array(image)


@contextmanager
def open_slide(path: Path, name: str) -> Iterator[Slide]:
    """Open a slide for a while.

    Args:
        path: The file.
        name: Its path relative to the root.

    Raises:
        Damaged: It cannot be opened.
    """
    require_file(path, name)
    _check_chunks(path, name)
    problem: Exception | None = None
    handle: Any = None
    for library in _libraries():
        try:
            handle = library.open_slide(str(path))
            break
        except Exception as error:  # of a foreign library, about a foreign file
            problem = error
    if handle is None:
        raise Damaged(name, f"cannot be opened as a slide: {problem}") from problem
    try:
        with decoding(name):
            slide = Slide(handle, name)
        yield slide
    finally:
        handle.close()


def _libraries() -> list[Any]:
    libraries: list[Any] = []
    try:
        import openslide

        libraries.append(openslide)
    except (ImportError, OSError):  # its shared library may be missing
        pass
    try:
        import tiffslide

        libraries.append(tiffslide)
    except ImportError:
        pass
    return libraries


def _check_chunks(path: Path, name: str) -> None:
    """Refuse TIFFs of huge tiles or strips, which would be decoded as a whole."""
    if path.suffix.lower() not in SUFFIXES[:7]:
        return
    with decoding(name), tifffile.TiffFile(path) as file:
        for level in file.series[0].levels:
            page: Any = level.keyframe
            rows, columns = (page.tilelength, page.tilewidth)
            if not page.is_tiled:
                rows, columns = min(page.rowsperstrip, page.imagelength), page.imagewidth
            check_pixels(int(rows), int(columns), name, "a tile of the file")
