"""Pictures that clients send, and masks that they get."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

import numpy as np
import torch

from medseg_gym.cases import Case, hash_pixels
from medseg_gym.cases.image_files.images import png_bytes, read_image, read_image_size
from medseg_gym.cases.volumes import parse_window
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance


def read_picture(
    content: bytes,
    allowance: Allowance,
    name: str = "image",
    window: str = "",
    modality: str = "",
) -> np.ndarray:
    """Decode an uploaded picture, turned as EXIF says that it is shown.

    Args:
        content: PNG, JPEG, TIFF, BMP, WebP, GIF or PNM.
        allowance: Counts its pixels before any is decoded.
        name: For the error.
        window: Intensities shown black and white in pictures of more than 8 bits, as
            `medseg_gym.cases.volumes.parse_window` reads it; "" refuses such pictures.
        modality: CT, MRI, ... or "".

    Returns:
        (H, W, 3) uint8, read-only.

    Raises:
        ServiceError: Too many pixels.
        CaseError: Not a picture, or it cannot be decoded; see
            `medseg_gym.cases.image_files.images.read_image`.
    """
    height, width = read_image_size(content, name)
    allowance.take(height, width, name)
    return read_image(content, name, window=parse_window(window, modality) if window else None)


def make_case(pixels: np.ndarray, key: str = "upload") -> Case:
    """An uploaded image as a case without a truth; its content hash is computed here."""
    case = Case(key, pixels, np.zeros(pixels.shape[:2], bool), "", truth_known=False)
    assert case.content_hash == hash_pixels(pixels)
    return case


def mask_text(mask: np.ndarray | torch.Tensor) -> str:
    """A mask, (H, W) bool, as base64 of a PNG with 0 and 255."""
    array = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else mask
    return base64.b64encode(png_bytes(array)).decode()


def read_floats(text: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Read base64 of little-endian float32.

    Args:
        text: Base64.
        shape: How many, and in which shape.
        name: For the error.

    Raises:
        ServiceError: Not base64, another size, or values that are no logits.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(f"{name} is not base64: {error}") from None
    if len(content) != 4 * math.prod(shape):
        raise ServiceError(
            f"{name} holds {len(content)} bytes; {shape} float32 values are "
            f"{4 * math.prod(shape)} bytes"
        )
    values = np.frombuffer(content, "<f4").reshape(shape)
    # NaN fails the comparison as well. Real logits stay far below this.
    if not bool((np.abs(values) <= 1e4).all()):
        raise ServiceError(f"{name} holds values that are not finite or beyond 10000")
    return values


def read_json_field(text: str, name: str) -> Any:
    """Parse a form field that holds JSON.

    Raises:
        ServiceError: It does not.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"{name} is not JSON: {str(error)[:200]}") from None


def point_at(x: Any, y: Any, positive: bool, width: int, height: int) -> AddPoint:
    """A click in pixels, whose centres are whole numbers, as a prompt.

    Raises:
        ServiceError: Not a number, or outside of the image.
    """
    return AddPoint(_fraction(x, width, "x"), _fraction(y, height, "y"), positive)


def box_at(corners: Any, width: int, height: int) -> AddBox:
    """A box [x1, y1, x2, y2] in pixels as a prompt.

    Raises:
        ServiceError: Not four numbers, outside of the image, or without area.
    """
    if not isinstance(corners, list) or len(corners) != 4:
        raise ServiceError(f"bbox must be [x1, y1, x2, y2] in pixels, got {str(corners)[:100]}")
    sides = (width, height, width, height)
    names = ("x1", "y1", "x2", "y2")
    box = AddBox(*(_fraction(v, s, n) for v, s, n in zip(corners, sides, names, strict=True)))
    if box.is_empty:
        raise ServiceError("the box has no area; its corners must differ in x and in y")
    return box


def _fraction(value: Any, side: int, name: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # The far edge is one past the last pixel: boxes end there, and clients scale to it.
    if not number or not -0.5 <= value <= side:
        raise ServiceError(
            f"{name} must be a number of pixels, 0 to {side - 1} (or {side}, the far edge), "
            f"got {str(value)[:50]}"
        )
    return min(max((value + 0.5) / side, 0.0), 1.0)
