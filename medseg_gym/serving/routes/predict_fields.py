"""The form fields of MedSAM-Agent's routes: from text to a row, from logits to a mask."""

from __future__ import annotations

import numpy as np
import torch

from medseg_gym.backbones.protocol import Embedding
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import hash_pixels
from medseg_gym.episodes import DecodeOptions
from medseg_gym.prompts import AddPoint
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.pixel_budget import Allowance
from medseg_gym.serving.routes.images import (
    box_at,
    mask_text,
    point_at,
    read_floats,
    read_json_field,
    read_upload,
)
from medseg_gym.serving.routes.row_messages import check_row


class PredictFields:
    """The form fields of `/predict` and `/predict_with_state`, still as text.

    Args:
        image: The uploaded file.
        point_coords: JSON [[x, y], ...] in pixels.
        point_labels: JSON [1, 0, ...].
        bbox: JSON [x1, y1, x2, y2] in pixels.
        text: JSON ["target"], or one JSON string.
        multimask_output: Three masks and the best; else the service's own rule.
        previous_logits: Base64 float32, or None.
        previous_logits_shape: JSON [1, h, w], or None for the backbone's own.
        window: See `read_upload`.
    """

    def __init__(
        self,
        image: bytes,
        point_coords: str | None,
        point_labels: str | None,
        bbox: str | None,
        text: str | None,
        multimask_output: bool,
        previous_logits: str | None = None,
        previous_logits_shape: str | None = None,
        window: str = "",
    ) -> None:
        self.image = image
        self.point_coords, self.point_labels = point_coords, point_labels
        self.bbox, self.text = bbox, text
        self.multimask_output = multimask_output
        self.previous_logits, self.shape = previous_logits, previous_logits_shape
        self.window = window

    def read(
        self, allowance: Allowance, facts: ServedFacts, options: DecodeOptions
    ) -> tuple[WireRow, np.ndarray]:
        """Return the row and the pixels of its image.

        Raises:
            ServiceError: A field cannot be used.
        """
        pixels = read_upload(self.image, allowance, window=self.window)
        height, width = pixels.shape[:2]
        points = read_points(self.point_coords, self.point_labels, width, height)
        box = None
        if self.bbox is not None:
            corners = box_at(read_json_field(self.bbox, "bbox"), width, height)
            box = (corners.x1, corners.y1, corners.x2, corners.y2)
        row = WireRow(
            hash_pixels(pixels),
            box,
            tuple((point.x, point.y, point.positive) for point in points),
            self._read_logits(facts),
            wants_multimask(options, self.multimask_output, box is None and len(points) == 1),
            self._read_text(),
        )
        check_row(row, facts, "the request")
        return row, pixels

    def _read_logits(self, facts: ServedFacts) -> np.ndarray | None:
        if self.previous_logits is None:
            return None
        expected = [1, *facts.logits_size]
        if self.shape is not None:
            shape = read_json_field(self.shape, "previous_logits_shape")
            if shape not in (expected, expected[1:]):
                raise ServiceError(
                    f"previous_logits_shape is {str(shape)[:100]}; {facts.name} takes {expected}"
                )
        return read_floats(self.previous_logits, facts.logits_size, "previous_logits")

    def _read_text(self) -> str | None:
        if self.text is None:
            return None
        target = read_json_field(self.text, "text")
        if isinstance(target, list) and len(target) == 1:
            target = target[0]
        if not isinstance(target, str) or not 0 < len(target) <= 200:
            raise ServiceError('text must be one target of up to 200 characters: ["left kidney"]')
        return target


def wants_multimask(options: DecodeOptions, asked: bool, ambiguous: bool) -> bool:
    """Return True if three masks are predicted: asked for, or by the service's own rule."""
    return asked or {"auto": ambiguous, "always": True, "never": False}[options.multimask]


def read_points(coords: str | None, labels: str | None, width: int, height: int) -> list[AddPoint]:
    """Read clicks from two JSON fields, [[x, y], ...] and [1, 0, ...].

    Raises:
        ServiceError: They do not fit together or the image.
    """
    if coords is None and labels is None:
        return []
    places = read_json_field(coords or "null", "point_coords")
    kinds = read_json_field(labels or "null", "point_labels")
    if not isinstance(places, list) or not isinstance(kinds, list) or len(places) != len(kinds):
        raise ServiceError("point_coords [[x, y], ...] and point_labels [1, 0, ...] go in pairs")
    if len(places) > 256:
        raise ServiceError(f"{len(places)} points in one request are more than 256")
    points = []
    for place, kind in zip(places, kinds, strict=True):
        if not isinstance(place, list) or len(place) != 2 or kind not in (0, 1):
            raise ServiceError("a point is [x, y] in pixels with the label 1 or 0")
        points.append(point_at(place[0], place[1], bool(kind), width, height))
    return points


def write_mask(
    facts: ServedFacts, logits: np.ndarray, pixels: np.ndarray, input_size: tuple[int, int]
) -> str:
    """Return the mask at the image's size, base64 PNG, from one row's logits (1, h, w)."""
    like = Embedding((), (pixels.shape[0], pixels.shape[1]), input_size)
    return mask_text(facts.to_image(torch.tensor(logits), [like])[0] > 0)
