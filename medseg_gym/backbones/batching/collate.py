"""From prompt rows of different length to one padded batch of prompt tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import PromptRow

# Labels as segment_anything writes them: 0 and 1 for clicks, 2 and 3 for box corners, -1 for its
# own "not a point". INERT pads a shorter row and must be masked out of every attention.
INERT, NOT_A_POINT, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -2, -1, 0, 1, 2, 3


class TokenBatch(NamedTuple):
    """Prompt tokens of B rows, padded to N.

    Attributes:
        coords: B x N x 2 float32 (x, y), pixels of the input frame; SAM itself adds the half.
        labels: B x N int64; `INERT` where padded.
        padded: True if any row is shorter than N.
    """

    coords: torch.Tensor
    labels: torch.Tensor
    padded: bool


def collate(
    rows: Sequence[PromptRow], device: torch.device, *, boxes_as_points: bool = False
) -> TokenBatch:
    """Build the tokens of each row in the order of the family's own predictor.

    Args:
        rows: B rows.
        device: Where the batch goes.
        boxes_as_points: False for segment_anything: clicks, then either the box's corners or,
            without a box, SAM's own `NOT_A_POINT`. True for sam2, which treats the corners as two
            more points: corners, clicks, and always `NOT_A_POINT`.
    """
    listed: list[list[tuple[float, float, int]]] = []
    for row in rows:
        tokens = [(p.x, p.y, POSITIVE if p.positive else NEGATIVE) for p in row.points]
        corners = []
        if row.box is not None:
            corners.append((row.box.x1, row.box.y1, TOP_LEFT))
            corners.append((row.box.x2, row.box.y2, BOTTOM_RIGHT))
        tokens = corners + tokens if boxes_as_points else tokens + corners
        if boxes_as_points or row.box is None:
            tokens.append((0.0, 0.0, NOT_A_POINT))
        listed.append(tokens)
    length = max(map(len, listed))
    table = np.zeros((len(rows), length, 3))
    table[:, :, 2] = INERT
    for i, tokens in enumerate(listed):
        table[i, : len(tokens)] = tokens
    # (height, width) -> (x, y) order
    image = np.array([row.embedding.image_size[::-1] for row in rows], dtype=np.float64)
    frame = np.array([row.embedding.input_size[::-1] for row in rows], dtype=np.float64)
    coords = (table[:, :, :2] * image[:, None] - 0.5) * (frame / image)[:, None]
    return TokenBatch(
        to_device(coords, device, torch.float32),
        to_device(table[:, :, 2], device, torch.int64),
        any(len(tokens) < length for tokens in listed),
    )
