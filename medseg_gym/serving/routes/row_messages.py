"""Conversion of the bodies of `/v1/...` to rows, and of logits to the body of the answer.

These functions compute (parsing, hashing, base64, PNG), so the routes run them in a worker thread.
The same routes stand before the micro-batcher and before a Ray Serve replica.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence

import numpy as np

from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import hash_pixels
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import read_floats, read_upload
from medseg_gym.serving.routes.messages import (
    DecodeAnswer,
    DecodeRequest,
    EncodeRequest,
    Picture,
    Row,
)
from medseg_gym.serving.routes.validation import parse


def check_backbone(wanted: str | None, facts: ServedFacts) -> None:
    """Refuse a client that expects other weights: its results would mix two models.

    Raises:
        ServiceError: 409.
    """
    if wanted is not None and wanted != facts.fingerprint:
        raise ServiceError(
            f"this service has the backbone {facts.fingerprint}, not {wanted[:200]}: ask "
            "GET /v1/backbone again",
            409,
        )


def read_encode(
    body: bytes, limits: Limits, facts: ServedFacts, allowance: Allowance
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the hashes that were asked for, and the images that were sent, by hash."""
    request = parse(EncodeRequest, body)
    check_backbone(request.backbone, facts)
    _check_count(len(request.hashes), limits, "hashes")
    _check_count(len(request.images), limits, "images")
    return list(request.hashes), dict(_read_images(request.images, allowance))


def read_decode(
    body: bytes, limits: Limits, facts: ServedFacts, allowance: Allowance
) -> tuple[list[WireRow], dict[str, np.ndarray], str]:
    """Return the rows, the images that were sent along by hash, and the dtype of the answer."""
    request = parse(DecodeRequest, body)
    check_backbone(request.backbone, facts)
    _check_count(len(request.rows), limits, "rows")
    _check_count(len(request.images), limits, "images")
    _check_points(request.rows, limits)
    height, width = facts.logits_size
    allowance.take_values(len(request.rows) * height * width)
    images = _read_images(request.images, allowance)
    keys = [key for key, _ in images]
    rows = [_read_row(row, i, keys, facts) for i, row in enumerate(request.rows)]
    return rows, dict(images), request.dtype


def write_decode(logits: np.ndarray, iou: np.ndarray, dtype: str) -> bytes:
    """Return the answer as JSON; float16 logits are clipped to the range of float16."""
    packed = logits.astype("<f4")
    if dtype == "float16":
        limit = float(np.finfo(np.float16).max)
        packed = packed.clip(-limit, limit).astype("<f2")
    answer = {
        "shape": list(logits.shape),
        "dtype": dtype,
        "logits": base64.b64encode(packed.tobytes()).decode(),
        "iou": iou.tolist(),
    }
    assert set(answer) == set(DecodeAnswer.model_fields)
    return json.dumps(answer).encode()


def _check_count(count: int, limits: Limits, name: str) -> None:
    if count > limits.max_rows:
        raise ServiceError(
            f"{count} {name} in one request are more than {limits.max_rows}; send several"
        )


def _check_points(rows: Sequence[Row], limits: Limits) -> None:
    longest = max(len(row.points) for row in rows)
    if longest * len(rows) > limits.max_points:
        raise ServiceError(
            f"{len(rows)} rows of up to {longest} points are too much work for one request: rows "
            f"times points of the longest must be at most {limits.max_points}; send several"
        )


def _read_images(images: Sequence[Picture], allowance: Allowance) -> list[tuple[str, np.ndarray]]:
    decoded = []
    for i, image in enumerate(images):
        pixels = _read_image(image, allowance, f"images[{i}]")
        decoded.append((hash_pixels(pixels), pixels))
    return decoded


def _read_image(image: Picture, allowance: Allowance, name: str) -> np.ndarray:
    text = image.picture if image.pixels is None else image.pixels
    both = image.picture is not None and image.pixels is not None
    if text is None or both or (image.pixels is None) != (image.size is None):
        raise ServiceError(f"{name} must have either picture, or pixels and size")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(f"{name} is not base64: {error}") from None
    if image.size is None:
        return read_upload(content, allowance, name, image.window)
    height, width = image.size
    if height < 1 or width < 1:
        raise ServiceError(f"{name}.size must be positive, got {height} x {width}")
    allowance.take(height, width, name)
    if len(content) != height * width * 3:
        raise ServiceError(
            f"{name} has {len(content)} bytes of pixels; {height} x {width} RGB are "
            f"{height * width * 3}"
        )
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _read_row(row: Row, index: int, keys: Sequence[str], facts: ServedFacts) -> WireRow:
    name = f"rows[{index}]"
    key = row.image
    if isinstance(key, int):
        if key >= len(keys):
            raise ServiceError(f"{name}.image is {key}, but {len(keys)} images were sent")
        key = keys[key]
    mask = None
    if row.mask_input is not None:
        mask = read_floats(row.mask_input, facts.logits_size, f"{name}.mask_input")
    decoded = WireRow(key, row.box, tuple(row.points), mask, row.multimask, row.text)
    check_row(decoded, facts, name)
    return decoded


def check_row(row: WireRow, facts: ServedFacts, name: str) -> None:
    """Refuse what the backbone cannot take.

    Raises:
        ServiceError: No prompt at all, a kind it does not take, or an empty box.
    """
    present = {"box": row.box is not None, "point": bool(row.points), "text": row.text is not None}
    kinds = [kind for kind, is_present in present.items() if is_present]
    if not kinds:
        raise ServiceError(f"{name} has no prompt; give it a box or a click")
    for kind in kinds:
        if kind not in facts.prompt_kinds:
            raise ServiceError(f"{name}: {facts.name} takes no {kind}")
    if row.box is not None and (row.box[0] == row.box[2] or row.box[1] == row.box[3]):
        raise ServiceError(f"{name}.box has no area; its corners must differ in x and in y")
    if row.mask_input is not None and not facts.takes_mask_input:
        raise ServiceError(f"{name}: {facts.name} takes no mask_input")
