"""Read mask files: the channel that is the mask, and its foreground."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.raster import Raster
from medseg_gym.cases.image_files.raster_files import read_raster

CHANNELS = ("auto", "alpha", "colour", "color", "index")
"""Choices of the option `mask_channel`."""


def read_labels(
    source: Path | bytes,
    name: str,
    place: str = "",
    kind: str = "binary",
    channel: str = "auto",
    stored: bool = False,
) -> np.ndarray:
    """Decode a mask file and take the channel that holds the mask.

    Left to itself ("auto"), that is the colour where alpha is the same everywhere, alpha where the
    colour is the same everywhere, and either where both show the same foreground. A palette file
    gives its indices, for kind "color" its colours; for "binary" both must show the same
    foreground, as far as there is black among the colours. What is left is refused: nothing in the
    file says which channel is meant.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.
        kind: What the values mean: "binary", "index", "instance" or "color".
        channel: One of `CHANNELS`.
        stored: See `read_raster`.

    Returns:
        (H, W) or, of a colour file, (H, W, 3); uint8 or another integer type. One-bit files give
        0 and 255.

    Raises:
        Damaged: It cannot be decoded, holds floating-point, CMYK or LAB values, has several
            channels that may be meant, or lacks the one asked for.
    """
    raster = read_raster(source, name, place, stored)
    _require_whole_numbers(raster, name, place)
    if channel != "auto":
        return _asked_for(raster, channel, name, place)
    if raster.palette is None or kind == "color":
        return _agreed(raster, name, place)
    return _by_palette(raster, name, place) if kind == "binary" else raster.values


def as_mask(labels: np.ndarray, name: str, place: str = "") -> np.ndarray:
    """Return the foreground of a binary mask file: value > 0; a colour file must hold greys alone.

    Raises:
        Damaged: A colour file whose channels differ.
    """
    if labels.ndim == 3:
        if not (labels == labels[:, :, :1]).all():
            raise Damaged(name, "is a colour image, not a binary mask", place)
        labels = labels[:, :, 0]
    return labels > 0


def _require_whole_numbers(raster: Raster, name: str, place: str) -> None:
    if raster.space:
        raise Damaged(name, f"is no mask: {raster.space} colour", place)
    if raster.values.dtype.kind not in "iu":
        raise Damaged(name, "is no mask: floating point", place)
    if raster.white_is_zero:
        raise Damaged(
            name, "shows 0 as white (WhiteIsZero) in more than 8 bits; write 0 as black", place
        )


def _asked_for(raster: Raster, channel: str, name: str, place: str) -> np.ndarray:
    if channel == "index":
        return raster.values
    if channel in ("colour", "color"):
        return raster.colours
    if raster.alpha is None:
        raise Damaged(name, "has no alpha channel, which mask_channel=alpha asks for", place)
    return raster.alpha


def _agreed(raster: Raster, name: str, place: str) -> np.ndarray:
    """Return the colours or alpha, whichever holds the mask."""
    colours, alpha = raster.colours, raster.alpha
    if alpha is None:
        return colours
    colours_vary, alpha_varies = _varies(colours), _varies(alpha)
    if colours_vary != alpha_varies:
        return colours if colours_vary else alpha
    shown, opaque = _foreground(colours), _foreground(alpha)
    # Where nothing varies, an opaque file is as its colour says.
    if (shown == opaque).all() or not (colours_vary or shown.any()):
        return colours
    what = "both hold a mask, and not the same" if colours_vary else "contradict each other"
    raise Damaged(
        name,
        f"colour and alpha {what}; say which is meant with mask_channel=alpha or "
        "mask_channel=colour",
        place,
    )


def _by_palette(raster: Raster, name: str, place: str) -> np.ndarray:
    """Return indices of a binary palette file, its greys where it has no other colours."""
    by_index, by_colour = raster.values > 0, _foreground(raster.colours)
    readings = {"colour": by_colour}
    if raster.alpha is not None:
        readings["alpha"] = _foreground(raster.alpha)
    for channel, by in readings.items():
        if by.any() and not by.all() and (by != by_index).any():
            raise Damaged(
                name,
                f"the {channel} of its palette shows another foreground than its indices; say "
                f"which is meant with mask_channel=index or mask_channel={channel}",
                place,
            )
    grey = (raster.colours == raster.colours[:, :, :1]).all()
    return raster.colours if grey and (by_colour == by_index).all() else raster.values


def _varies(values: np.ndarray) -> bool:
    return bool((values != values[0, 0]).any())


def _foreground(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.any(axis=2) if values.ndim == 3 else values != 0)
