"""Where in a label volume each label lies: pixels per value and slice, from one pass."""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.volumes import Volume

MAX_VALUE = 65_535
MAX_DISTINCT = 1_000

Areas = dict[int, dict[int, int]]
"""Label value -> slice index -> pixels, in ascending order of both; background 0 is left out."""


def label_areas(volume: Volume, channel: int = 0) -> Areas:
    """Pixels per label value and slice.

    Floating-point labels are accepted where every value is a whole number, as many programs write.

    Args:
        volume: A label volume.
        channel: Component of its voxels.

    Raises:
        Damaged: Values that are not whole, not finite, negative, or far too many for labels; or
            the file is damaged.
    """
    found: Areas = {}
    for index in range(len(volume)):
        plane = whole_numbers(volume.plane(index, channel), volume.name, f"slice {index}")
        counts = np.bincount(plane.ravel(order="K"))
        for value in np.flatnonzero(counts[1:]) + 1:
            found.setdefault(int(value), {})[index] = int(counts[value])
        if len(found) > MAX_DISTINCT:
            raise Damaged(
                volume.name, f"has over {MAX_DISTINCT} distinct values: an image, not labels"
            )
    return dict(sorted(found.items()))


def whole_numbers(plane: np.ndarray, name: str, place: str) -> np.ndarray:
    """A slice of a label volume as integers.

    Args:
        plane: Array of any real type.
        name: The file, for the error.
        place: Where in it, for the error.

    Raises:
        Damaged: See `label_areas`.
    """
    if plane.dtype.kind == "b":
        return plane.view(np.uint8)
    if plane.dtype.kind == "f":
        finite = np.isfinite(plane)
        if not finite.all():
            count = int(np.count_nonzero(~finite))
            raise Damaged(name, f"{count} labels are NaN or infinite", place)
        if (odd := plane != np.rint(plane)).any():
            raise Damaged(
                name,
                f"labels must be whole numbers, found {float(plane[odd][0]):g}; threshold a "
                "probability map first",
                place,
            )
    if plane.dtype.kind != "u" or plane.dtype.itemsize > 2:
        outside = [value for value in (plane.min(), plane.max()) if not 0 <= value <= MAX_VALUE]
        if outside:
            raise Damaged(name, f"label {outside[0]:g} is outside of 0..{MAX_VALUE}", place)
        return plane.astype(np.uint16)
    return plane
