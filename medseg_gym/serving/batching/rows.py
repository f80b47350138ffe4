"""Stateless requests: from a message of `/v1/...` to rows and back.

What runs in a worker thread (parsing, hashing, base64, PNG) is a plain function here; the routes
only await. The same routes stand before the micro-batcher and before a Ray Serve replica.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import hash_pixels
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.limits import Limits
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import read_floats, read_picture
from medseg_gym.serving.routes.messages import (
    DecodeAnswer,
    DecodeRequest,
    EncodeRequest,
    Picture,
    Row,
)

M = TypeVar("M", bound=BaseModel)

_MOST_VALUES = 1 << 18  # JSON values of a body, each of which takes far more memory than its text
_MOST_FAULTS = 20  # told of a body that does not fit
_LONGEST_WORDS = 200  # of a fault, and of a name in its place


class RowDecoder(Protocol):
    """Who encodes and decodes for the stateless routes."""

    @property
    def facts(self) -> ServedFacts:
        """Of the backbone behind it."""
        ...

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash; the `input_size` of each."""
        ...

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The `input_size` of those images that are held."""
        ...

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, h, w) float32 and predicted IoU (B,) float32; `MissingImages` may come."""
        ...


class Invalid(ServiceError):
    """A body that does not fit its description.

    Args:
        detail: One entry per fault, as pydantic lists them, without what was sent.
    """

    def __init__(self, detail: list) -> None:
        super().__init__("the body does not fit its description")
        self.detail = detail


def parse(model: type[M], body: bytes) -> M:
    """Read a JSON body.

    Raises:
        Invalid: It does not fit.
        ServiceError: It holds more values than any request has.
    """
    # Base64, which is most of a body, has none of these characters.
    if sum(body.count(mark) for mark in (b",", b"[", b"{", b":")) > _MOST_VALUES:
        raise ServiceError(f"the body holds more than {_MOST_VALUES} values; send several", 413)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MOST_VALUES >> 8:  # listing them would cost more than the body
            count = error.error_count()
            raise ServiceError(f"the body does not fit its description in {count} places") from None
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(
            list_faults([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])
        ) from None


def list_faults(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is told of faults as pydantic lists them: where and what, the first of them, cut.

    What was sent is left out: it may be huge, or no JSON (NaN, bytes). A place may hold names that
    the client chose.
    """
    told = [
        {
            "type": fault["type"],
            "loc": [part if isinstance(part, int) else part[:_LONGEST_WORDS] for part in where],
            "msg": str(fault["msg"])[:_LONGEST_WORDS],
        }
        for fault in faults[:_MOST_FAULTS]
        for where in [list(fault["loc"])[:_MOST_FAULTS]]
    ]
    if len(faults) > _MOST_FAULTS:
        left = f"and {len(faults) - _MOST_FAULTS} more faults"
        told.append({"type": "more", "loc": ["body"], "msg": left})
    return told


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
) -> tuple[list[str], dict]:
    """Hashes that were asked for, and the images that were sent, by hash and in order."""
    request = parse(EncodeRequest, body)
    check_backbone(request.backbone, facts)
    _check_count(len(request.hashes), limits, "hashes")
    _check_count(len(request.images), limits, "images")
    return list(request.hashes), dict(_read_images(request.images, allowance))


def read_decode(
    body: bytes, limits: Limits, facts: ServedFacts, allowance: Allowance
) -> tuple[list[WireRow], dict[str, np.ndarray], str]:
    """Rows, images that were sent along by hash, and the dtype wanted."""
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
    """The answer as JSON; logits beyond the range of float16 keep their sign and become its end."""
    packed = logits.astype("<f4")
    if dtype == "float16":
        most = float(np.finfo(np.float16).max)
        packed = packed.clip(-most, most).astype("<f2")
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


def _read_images(pictures: Sequence[Picture], allowance: Allowance) -> list[tuple[str, np.ndarray]]:
    found = []
    for i, picture in enumerate(pictures):
        pixels = _read_image(picture, allowance, f"images[{i}]")
        found.append((hash_pixels(pixels), pixels))
    return found


def _read_image(picture: Picture, allowance: Allowance, name: str) -> np.ndarray:
    given = picture.picture if picture.pixels is None else picture.pixels
    both = picture.picture is not None and picture.pixels is not None
    if given is None or both or (picture.pixels is None) != (picture.size is None):
        raise ServiceError(f"{name} must have either picture, or pixels and size")
    try:
        content = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(f"{name} is not base64: {error}") from None
    if picture.size is None:
        return read_picture(content, allowance, name, picture.window)
    height, width = picture.size
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
    found = WireRow(key, row.box, tuple(row.points), mask, row.multimask, row.text)
    check_row(found, facts, name)
    return found


def check_row(row: WireRow, facts: ServedFacts, name: str) -> None:
    """Refuse what the backbone cannot take.

    Raises:
        ServiceError: No prompt at all, a kind it does not take, or an empty box.
    """
    given = {"box": row.box is not None, "point": bool(row.points), "text": row.text is not None}
    kinds = [kind for kind, there in given.items() if there]
    if not kinds:
        raise ServiceError(f"{name} has no prompt; give it a box or a click")
    for kind in kinds:
        if kind not in facts.prompt_kinds:
            raise ServiceError(f"{name}: {facts.name} takes no {kind}")
    if row.box is not None and (row.box[0] == row.box[2] or row.box[1] == row.box[3]):
        raise ServiceError(f"{name}.box has no area; its corners must differ in x and in y")
    if row.mask_input is not None and not facts.takes_mask_input:
        raise ServiceError(f"{name}: {facts.name} takes no mask_input")
