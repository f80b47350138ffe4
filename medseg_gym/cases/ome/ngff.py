"""Images and label images of OME-Zarr: the metadata of NGFF 0.4 and 0.5."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.files.access.guards import check_pixels, read_json
from medseg_gym.cases.files.access.json_values import inner_path, require_kind
from medseg_gym.cases.files.access.walk import MAX_DEPTH
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.ome.arrays import check_array
from medseg_gym.cases.ome.stack import Stack, axes_of

_MILLIMETRES = {"micrometer": 1e-3, "millimeter": 1.0, "nanometer": 1e-6, "meter": 1e3}


def groups(root: Path, name: str = "", depth: int = 0) -> Iterator[str]:
    """Yield paths of the groups that hold an image, label images left out, in order.

    Args:
        root: The folder that paths are relative to.
        name: Where to begin.
        depth: Folders that lie above.
    """
    folder = root / name if name else root
    if (folder / ".zarray").exists() or depth > MAX_DEPTH:
        return
    try:
        attributes = read_attributes(folder, name)
    except Damaged:  # opening it says what is wrong
        yield name
        return
    if attributes is not None and "multiscales" in attributes:
        yield name
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from groups(root, f"{name}/{entry.name}" if name else entry.name, depth + 1)


def read_attributes(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what NGFF says of a group; None where it is none.

    Raises:
        Damaged: Its metadata cannot be read.
    """
    if (folder / "zarr.json").exists():
        shown = f"{name}/zarr.json".lstrip("/")
        meta = require_kind(read_json(folder / "zarr.json", shown), dict, "the JSON", shown)
        if meta.get("node_type") != "group":
            return None
        attributes = require_kind(meta.get("attributes", {}), dict, "'attributes'", shown)
        ome: dict[str, Any] = require_kind(attributes.get("ome", {}), dict, "'ome'", shown)
        return {**attributes, **ome}
    if (folder / ".zattrs").exists():
        shown = f"{name}/.zattrs".lstrip("/")
        whole: dict[str, Any]
        whole = require_kind(read_json(folder / ".zattrs", shown), dict, "the JSON", shown)
        return whole
    return None


def label_names(folder: Path, name: str) -> list[str]:
    """Return the names of the label images of an image.

    Raises:
        Damaged: Its list cannot be read.
    """
    shown = f"{name}/labels".lstrip("/")
    attributes = read_attributes(folder / "labels", shown)
    if attributes is None:
        return []
    listed = require_kind(attributes.get("labels", []), list, "'labels'", shown)
    return [inner_path(one, "labels", shown, "") for one in listed]


def open_image(folder: Path, name: str, level: int) -> tuple[Stack, dict[str, Any]]:
    """Open one resolution of an image or a label image.

    Args:
        folder: The group.
        name: Its path relative to the root, for errors.
        level: Which resolution, 0 is the largest.

    Returns:
        The planes, and the attributes of the group.

    Raises:
        Damaged: It cannot be used.
    """
    import zarr

    attributes = read_attributes(folder, name)
    if attributes is None:
        raise Damaged(name, "is no group of OME-Zarr: it has neither .zattrs nor zarr.json")
    scales = require_kind(attributes.get("multiscales"), list, "'multiscales'", name)
    if not scales:
        raise Damaged(name, "'multiscales' is empty")
    first = require_kind(scales[0], dict, "multiscales[0]", name)
    datasets = require_kind(first.get("datasets"), list, "'datasets'", name)
    if level >= len(datasets):
        raise Damaged(name, f"has {len(datasets)} resolutions; level={level} is none of them")
    dataset = require_kind(datasets[level], dict, f"datasets[{level}]", name)
    axes, units = _axes(first.get("axes"), name)
    path = inner_path(dataset.get("path"), "path", name, f"datasets[{level}]")
    shape = check_array(folder / path, f"{name}/{path}".lstrip("/"))
    if len(shape) != len(axes):
        raise Damaged(name, f"has {len(axes)} axes ({axes}) and an array of {len(shape)}")
    sizes = dict(zip(axes, shape, strict=True))
    check_pixels(sizes["y"], sizes["x"], name)
    if zarr.__version__ < "3" and (folder / path / "zarr.json").exists():
        cause = f"is NGFF 0.5, which zarr {zarr.__version__} does not read"
        raise Damaged(name, f"{cause}; pip install 'zarr>=3' needs Python 3.11")
    try:
        array = zarr.open_array(str(folder / path), mode="r")
    except Exception as error:  # of a foreign library, about a foreign file
        raise Damaged(name, f"array {path!r} cannot be opened: {error}") from error

    def read(t: int, c: int, z: int) -> np.ndarray:
        at = {"t": t, "c": c, "z": z}
        return np.asarray(array[tuple(at.get(axis, slice(None)) for axis in axes)])

    dtype = np.dtype(array.dtype)
    spacing = _spacing(dataset, axes, units)
    return Stack(name, sizes, dtype, read, spacing, _windows(attributes)), attributes


def _axes(value: Any, name: str) -> tuple[str, list[str]]:
    axes = require_kind(value, list, "'axes'", name)
    names = [axis.get("name") if isinstance(axis, dict) else axis for axis in axes]
    if not all(isinstance(axis, str) for axis in names):
        raise Damaged(name, f"'axes' is {str(axes)[:60]}, expected objects with a name")
    units = [str(axis.get("unit", "")) if isinstance(axis, dict) else "" for axis in axes]
    return axes_of("".join(map(str, names)), name), units


def _spacing(dataset: dict[str, Any], axes: str, units: list[str]) -> tuple[float, float] | None:
    for one in dataset.get("coordinateTransformations") or []:
        scale = one.get("scale") if isinstance(one, dict) else None
        if isinstance(scale, list) and len(scale) == len(axes):
            try:
                row, column = (
                    float(scale[at]) * _MILLIMETRES[units[at]] for at in (len(axes) - 2, -1)
                )
            except (KeyError, TypeError, ValueError):
                return None
            return (row, column) if 0 < row < math.inf and 0 < column < math.inf else None
    return None


def _windows(attributes: dict[str, Any]) -> tuple[tuple[float, float] | None, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    windows: list[tuple[float, float] | None] = []
    for channel in channels if isinstance(channels, list) else []:
        window = channel.get("window") if isinstance(channel, dict) else None
        try:
            low, high = float(window["start"]), float(window["end"])  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            windows.append(None)
        else:
            windows.append((low, high) if -math.inf < low < high < math.inf else None)
    return tuple(windows)
