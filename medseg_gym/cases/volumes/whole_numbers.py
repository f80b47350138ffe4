"""Labels of a volume as whole numbers, or a clear refusal."""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.files import Damaged

MAX_VALUE = 65_535

TOLERANCE = 1e-3
"""Largest distance of a label from the whole number it stands for: scaled storage is not exact."""


def whole_numbers(plane: np.ndarray, name: str, place: str) -> np.ndarray:
    """Convert a slice of a label volume to integers; values within `TOLERANCE` of one are rounded.

    Args:
        plane: Array of any real type.
        name: The file, for the error.
        place: Where in it, for the error.

    Raises:
        Damaged: Values that are not whole, not finite, negative, or too large.
    """
    if plane.dtype.kind == "b":
        return plane.view(np.uint8)
    if plane.dtype.kind == "f":
        finite = np.isfinite(plane)
        if not finite.all():
            count = int(np.count_nonzero(~finite))
            raise Damaged(
                name,
                f"{count} labels are NaN or infinite; write 0 where nothing is labelled",
                place,
            )
        whole = np.rint(plane)
        if (odd := np.abs(plane - whole) > TOLERANCE + 1e-9).any():
            raise Damaged(
                name,
                f"labels must be whole numbers, found {float(plane[odd][0]):g}; threshold a "
                "probability map first",
                place,
            )
        plane = whole
    if plane.dtype.kind != "u" or plane.dtype.itemsize > 2:
        outside = [value for value in (plane.min(), plane.max()) if not 0 <= value <= MAX_VALUE]
        if outside:
            raise Damaged(name, f"label {outside[0]:g} is outside of 0..{MAX_VALUE}", place)
        return plane.astype(np.uint16)
    return plane
