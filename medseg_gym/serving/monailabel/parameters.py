"""The JSON `params` of an infer request: points and a box in voxels of the file.

Points are [i, j, k], voxel indices along the axes of the file as nibabel and ITK count them, which
is the IJK space of 3D Slicer. A box is [i1, i2, j1, j2, k1, k2], as Slicer's plugin sends it: pairs
along each axis, in either order, both ends included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from medseg_gym.cases.volumes import View
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.prompts.volumes import SlicePrompt
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.images import read_json_field

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")
"""Kinds of label files that are written."""

DTYPES = ("uint8", "uint16")
"""Types of voxels that clients may ask for; a NIfTI's are uint8."""

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Parameters:
    """Fields of `params` that are used; all others are left alone, as MONAI Label does.

    Args:
        foreground: Points on the target.
        background: Points on what is not.
        box: Lowest and highest index along i, j and k; None without a box.
        slice: Index along k of the slice that a 2D model is to segment; None takes that of the
            newest point or the middle of the box.
        label: Name of the segment.
        extension: One of `EXTENSIONS`.
        compress: Compress a .nrrd.
        dtype: Of the voxels of a .nrrd, one of `DTYPES`; OHIF reads uint16 alone.
        window: Intensities shown black and white; None takes the service's.
    """

    foreground: tuple[Point, ...] = ()
    background: tuple[Point, ...] = ()
    box: tuple[Point, Point] | None = None
    slice: int | None = None
    label: str = ""
    extension: str = ".nii.gz"
    compress: bool = True
    dtype: str = "uint8"
    window: str | None = None


def read_parameters(text: str, max_points: int) -> Parameters:
    """Read `params`.

    Args:
        text: JSON.
        max_points: Most points together.

    Raises:
        ServiceError: It is no JSON object, or a field is not what it should be.
    """
    given = read_json_field(text or "{}", "params")
    if not isinstance(given, dict):
        raise ServiceError(f"params must be a JSON object, got {str(given)[:60]}")
    points = {name: _points(given.get(name), name) for name in ("foreground", "background")}
    count = sum(len(some) for some in points.values())
    if count > max_points:
        raise ServiceError(f"params hold {count} points, and {max_points} are taken")
    extension = given.get("result_extension") or ".nii.gz"
    if extension not in EXTENSIONS:
        raise ServiceError(
            f"result_extension {str(extension)[:40]!r} is not written; use {', '.join(EXTENSIONS)}"
        )
    dtype = given.get("result_dtype") or "uint8"
    if dtype not in DTYPES:
        raise ServiceError(
            f"result_dtype {str(dtype)[:40]!r} is not written; use {' or '.join(DTYPES)}"
        )
    index = given.get("slice")
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise ServiceError(f"slice must be a whole number, got {str(index)[:40]}")
    return Parameters(
        points["foreground"],
        points["background"],
        _box(given.get("roi")),
        None if index is None or index < 0 else index,
        _text(given, "label", 200),
        extension,
        bool(given.get("result_compress", True)),
        dtype,
        _text(given, "window", 40) or None,
    )


def _text(given: dict[str, Any], name: str, longest: int) -> str:
    value = given.get(name) or ""
    if not isinstance(value, str) or len(value) > longest:
        raise ServiceError(f"{name} must be a text of at most {longest} characters")
    return value


def _points(given: Any, name: str) -> tuple[Point, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ServiceError(f"{name} must be a list of points [i, j, k], got {str(given)[:60]}")
    return tuple(_numbers(one, 3, f"a point of {name}") for one in given)  # type: ignore[misc]


def _box(given: Any) -> tuple[Point, Point] | None:
    if given is None or given == []:
        return None
    i1, i2, j1, j2, k1, k2 = _numbers(given, 6, "roi")
    pairs = ((i1, i2), (j1, j2), (k1, k2))
    low, high = (tuple(choose(pair) for pair in pairs) for choose in (min, max))
    return low, high  # type: ignore[return-value]


def _numbers(given: Any, count: int, name: str) -> tuple[float, ...]:
    listed = isinstance(given, list) and len(given) == count
    if not listed or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in given):
        form = "[i, j, k]" if count == 3 else "[i1, i2, j1, j2, k1, k2]"
        raise ServiceError(f"{name} must be {form} in voxels, got {str(given)[:60]}")
    # Also of whole numbers: one of hundreds of digits becomes no float.
    if not all(abs(value) < 1e9 and math.isfinite(value) for value in given):
        raise ServiceError(f"{name} has numbers that are not finite or far too large")
    return tuple(float(value) for value in given)


@dataclass(frozen=True)
class Placed:
    """Prompts on the slices of a case.

    Args:
        prompts: In the order in which they are made: the box, then the points.
        first: First slice that the mask may be on.
        last: Last one.
    """

    prompts: tuple[SlicePrompt, ...]
    first: int
    last: int


def place(parameters: Parameters, shape: tuple[int, ...], view: View, flat: bool) -> Placed:
    """Place points and box on the slices of a case.

    Args:
        parameters: As they were read.
        shape: Voxels along the axes of the file.
        view: How those become slices, rows and columns.
        flat: One slice alone is segmented.

    Raises:
        ServiceError: A point or box outside of the volume, no such slice, or nothing to begin with.
    """
    if not parameters.foreground and parameters.box is None:
        raise ServiceError("give a point in foreground, or a box in roi: nothing shows the target")
    points = [(_shown(p, shape, view, "foreground"), True) for p in parameters.foreground]
    points += [(_shown(p, shape, view, "background"), False) for p in parameters.background]
    depth, height, width = view.shape
    low = high = None
    if parameters.box is not None:
        low, high = _shown_box(parameters.box, shape, view)
    only: int | None = None
    if flat:
        only = _flat_slice(parameters, shape, view)
        points = [(at, positive) for at, positive in points if round(at[0]) == only]
        if low is None and not any(positive for _, positive in points):
            raise ServiceError("no point in foreground is on the slice that is to be segmented")
    prompts: list[SlicePrompt] = []
    first, last = (0, depth - 1) if only is None else (only, only)
    if low is not None and high is not None:
        ends = math.ceil(low[0]), math.floor(high[0])
        if only is None:
            first, last = ends
        middle = (ends[0] + ends[1]) // 2 if only is None else only
        box = AddBox(
            max(low[2] / width, 0.0),
            max(low[1] / height, 0.0),
            min((high[2] + 1) / width, 1.0),
            min((high[1] + 1) / height, 1.0),
        )
        prompts.append(SlicePrompt(middle, box))
    for (where, row, column), positive in points:
        point = AddPoint((column + 0.5) / width, (row + 0.5) / height, positive)
        prompts.append(SlicePrompt(min(max(round(where), 0), depth - 1), point))
    return Placed(tuple(prompts), first, last)


def _flat_slice(parameters: Parameters, shape: tuple[int, ...], view: View) -> int:
    """Return the slice that a 2D model segments, as the case numbers it."""
    if parameters.slice is not None:
        index = parameters.slice
    elif parameters.foreground:
        index = round(parameters.foreground[-1][2])
    else:
        assert parameters.box is not None
        index = round((parameters.box[0][2] + parameters.box[1][2]) / 2)
    if not 0 <= index < shape[2]:
        raise ServiceError(f"there is no slice {index}; the volume has 0 to {shape[2] - 1}")
    return view.stored_index(index)


def _shown(point: Point, shape: tuple[int, ...], view: View, name: str) -> Point:
    """Return slice, row and column of a voxel."""
    for axis, value in enumerate(point):
        if not -0.5 <= value <= shape[axis] - 0.5:
            size = " x ".join(str(int(n)) for n in shape)
            raise ServiceError(
                f"a point of {name}, {[*point]}, lies outside of the volume of {size} voxels"
            )
    return _turned(point, view)


def _turned(point: Point, view: View) -> Point:
    places = zip(view.order, view.flips, view.shape, strict=True)
    where, row, column = (
        n - 1 - point[voxel] if flip else point[voxel] for voxel, flip, n in places
    )
    return where, row, column


def _shown_box(box: tuple[Point, Point], shape: tuple[int, ...], view: View) -> tuple[Point, Point]:
    """Return the lowest and highest slice, row and column of a box, cut at the volume's edges."""
    cut = []
    for axis, (start, end) in enumerate(zip(*box, strict=True)):
        if end < 0 or start > shape[axis] - 1:
            size = " x ".join(str(int(n)) for n in shape)
            raise ServiceError(f"roi lies outside of the volume of {size} voxels")
        cut.append((max(start, 0.0), min(end, shape[axis] - 1.0)))
    one = _turned((cut[0][0], cut[1][0], cut[2][0]), view)
    other = _turned((cut[0][1], cut[1][1], cut[2][1]), view)
    pairs = list(zip(one, other, strict=True))
    low, high = (tuple(choose(pair) for pair in pairs) for choose in (min, max))
    if math.ceil(low[0]) > math.floor(high[0]):
        raise ServiceError("roi holds the middle of no slice; make it thicker")
    return low, high  # type: ignore[return-value]
