"""Planes of OME-TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from medseg_gym.cases.files.access.guards import check_pixels, check_voxels, require_file
from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.cases.ome.stack import Stack, axes_of

SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.btf")
_MILLIMETRES = {"µm": 1e-3, "um": 1e-3, "mm": 1.0, "nm": 1e-6, "m": 1e3}


def open_tiff(path: Path, name: str) -> Stack:
    """Open the first image of an OME-TIFF.

    Args:
        path: The file.
        name: Its path relative to the root.

    Raises:
        Damaged: It cannot be used.
    """
    require_file(path, name)
    with decoding(name), tifffile.TiffFile(path) as file:
        if not file.is_ome:
            raise Damaged(name, "has no OME-XML; folder: reads TIFFs without it")
        series = file.series[0]
        axes, shape = series.axes.lower(), tuple(int(side) for side in series.shape)
        spacing = _spacing(tifffile.xml2dict(file.ome_metadata or ""))
        dtype = np.dtype(series.dtype)
    rgb = axes.endswith("s") and shape[-1] == 3
    plain = axes_of(axes[:-1] if rgb else axes, name)
    sizes = dict(zip(plain, shape, strict=False))
    check_pixels(sizes["y"], sizes["x"], name)
    check_voxels(shape, name)

    def read(t: int, c: int, z: int) -> np.ndarray:
        at = {"t": t, "c": c, "z": z}
        index = 0
        for axis in plain[:-2]:
            index = index * sizes[axis] + at[axis]
        with tifffile.TiffFile(path) as file:
            pages = file.series[0].pages
            page: Any = pages[index] if len(pages) > 1 else pages[0]
            if page is None:
                raise Damaged(name, "the plane is missing", f"t {t}, c {c}, z {z}")
            plane = page.asarray(maxworkers=1)
            if plane.ndim == 2 + rgb:
                return np.asarray(plane)
            return np.asarray(plane.reshape(-1, *shape[len(plain) - 2 :])[index])

    return Stack(name, sizes, dtype, read, spacing, rgb=rgb)


def _spacing(document: Any) -> tuple[float, float] | None:
    try:
        image = document["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        row, column = (
            float(pixels[f"PhysicalSize{axis}"])
            * _MILLIMETRES[pixels.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "YX"
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (row, column) if row > 0 and column > 0 else None
