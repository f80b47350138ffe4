"""Planes as the images of cases, and the values of label planes."""

from __future__ import annotations

from typing import Any

import numpy as np

from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.ome.stack import Stack
from medseg_gym.cases.volumes import Window
from medseg_gym.cases.windowing import window_values
from medseg_gym.errors import CaseError

MAX_VALUES = 100_000
"""Distinct values of one label image."""


def plane_values(labels: Stack) -> dict[str, Any]:
    """Count the pixels of every value but 0 on every plane, for a `FileCache`.

    Returns:
        "planes": [[t, z], [[value, pixels], ...]] each; or "defect" as a dict.
    """
    planes: list[Any] = []
    distinct: set[int] = set()
    try:
        for t, z in labels.places():
            values, counts = np.unique(labels.plane(t, 0, z), return_counts=True)
            if values.size and values[0] < 0:
                raise Damaged(labels.name, f"has the label {values[0]}", f"t {t}, z {z}")
            of_plane = [[int(v), int(n)] for v, n in zip(values, counts, strict=True) if v]
            distinct.update(value for value, _ in of_plane)
            if len(distinct) > MAX_VALUES:
                raise Damaged(labels.name, f"has over {MAX_VALUES} values: an image, not labels")
            if of_plane:
                planes.append([[t, z], of_plane])
    except Damaged as error:
        return {"defect": error.defect.as_dict()}
    return {"planes": planes}


def shown_plane(
    stack: Stack, t: int, z: int, channels: list[int], window: Window | None
) -> np.ndarray:
    """Return a plane as RGB.

    Args:
        stack: The image.
        t: Time point.
        z: Focal plane.
        channels: One or three; empty is the only one, or three of 8 bits as colours.
        window: Intensities shown black and white; None takes the file's own.

    Returns:
        (H, W, 3) uint8.

    Raises:
        Damaged: It cannot be decoded, or nothing says what is shown.
    """
    place = f"t {t}, z {z}"
    if stack.rgb:
        plane = stack.plane(t, 0, z)
        parts = [plane[:, :, at] for at in range(3)]
        own: list[tuple[float, float] | None] = [None] * 3
    else:
        chosen = channels or list(range(stack.channels))
        if not channels and len(chosen) not in (1, 3):
            cause = f"has {stack.channels} channels; choose with channel=0 or channel=0+1+2"
            raise Damaged(stack.name, cause)
        if max(chosen) >= stack.channels:
            cause = f"has {stack.channels} channels; channel={max(chosen)} is none of them"
            raise Damaged(stack.name, cause)
        parts = [stack.plane(t, c, z) for c in chosen]
        own = [stack.windows[c] if c < len(stack.windows) else None for c in chosen]
    try:
        shown = [_shown(part, window, given) for part, given in zip(parts, own, strict=True)]
    except CaseError as error:
        raise Damaged(stack.name, str(error), place) from error
    return np.ascontiguousarray(np.stack(shown * (3 // len(shown)), axis=2))


def _shown(part: np.ndarray, window: Window | None, own: tuple[float, float] | None) -> np.ndarray:
    if part.dtype == np.bool_:
        part = part.astype(np.uint8) * 255
    if window is None and own is None and part.dtype == np.uint8:
        return part
    if window is not None:

        def percentiles(low: float, high: float) -> tuple[float, float]:
            seen = part[part != 0]
            first, last = np.percentile(seen if seen.size else part, [low, high])
            return float(first), float(last) if last > first else float(first) + 1.0

        low, high = window.limits(percentiles)
    elif own is not None:
        low, high = own
    else:
        finite = part[np.isfinite(part)]
        span = f", from {finite.min():g} to {finite.max():g}" if finite.size else ""
        raise CaseError(
            f"has more than 8 bits a sample ({part.dtype.name}{span}) and no intensity window; add "
            "window=LOW,HIGH, the intensities shown black and white"
        )
    return window_values(part, low, high)
