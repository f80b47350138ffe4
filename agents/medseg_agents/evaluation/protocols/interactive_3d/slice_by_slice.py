"""A baseline: any 2D backbone, slice by slice, from the box and the clicks outward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg_agents.evaluation.protocols.interactive_3d.clicks import ClassClicks
from medseg_agents.evaluation.protocols.interactive_3d.segmenter import require_prompts
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.protocol import Backbone, PromptRow
from medseg_gym.cases.case import hash_pixels
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.prompts import AddBox, AddPoint

MARGIN = 0.02
"""Share of its side by which the box around a neighbour's mask grows, so that a target can."""

BATCH = 32
"""Rows of one decoder call, at most."""


@dataclass
class _Front:
    """A slice that is to be segmented next, and where it comes from.

    Args:
        row: Class, from 0.
        slice: Index of the slice.
        step: +1 or -1; 0 where the prompts are a box or clicks.
        last: The slice that is reached at last, in that direction.
        box: What encloses the target there, or None.
        logits: Low-resolution logits of the neighbour, h x w, or None.
    """

    row: int
    slice: int
    step: int
    last: int
    box: AddBox | None
    logits: torch.Tensor | None = None


class SliceBySlice:
    """Segments from anchors and follows each target through its neighbours while it lives.

    Anchors of a class are the middle slice of its box and every slice with a foreground click;
    there the box, or the box around the mask so far, and the clicks are the prompts. From an anchor
    the mask of the neighbour becomes the box of the next slice (and its logits the mask input,
    where the backbone takes one), together with the clicks that lie there, half-way to the next
    anchor or, at the ends, to the first and last slice of the box. A slice without a mask ends it.
    Every iteration starts afresh from all prompts. Where classes overlap, the larger logit wins.

    Args:
        backbone: Takes boxes and points.

    Raises:
        BackboneError: It does not.
    """

    def __init__(self, backbone: Backbone) -> None:
        require_prompts(backbone.name, backbone.prompt_kinds)
        self.backbone = backbone
        self.name = f"{backbone.name}, slice by slice"

    def segment(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        boxes: Sequence[VolumeBox] | None,
        clicks: Sequence[ClassClicks],
        previous: np.ndarray | None,
    ) -> np.ndarray:
        """See `InteractiveSegmenter3D`."""
        del spacing  # a slice is followed by the next one, however far it is
        shape = image.shape[:3]
        labels = np.zeros(shape, np.uint16)
        best = np.zeros(shape, np.float16)  # largest logit so far
        fronts: list[_Front] = []
        for row, of_class in enumerate(clicks):
            box = boxes[row] if boxes is not None else None
            before = None if previous is None else previous == row + 1
            fronts.extend(_anchors(row, shape, box, of_class, before))
        ends = _ends(fronts, shape[0], boxes)
        while fronts:
            following: list[_Front] = []
            for start in range(0, len(fronts), BATCH):
                part = fronts[start : start + BATCH]
                low, high = self._decode(image, part, clicks)
                for front, logits, mask_logits in zip(part, low, high, strict=True):
                    mask = mask_logits > 0
                    if not mask.any():
                        continue
                    kept = mask_logits.astype(np.float16)
                    wins = mask & (kept > best[front.slice])
                    labels[front.slice][wins] = front.row + 1
                    best[front.slice][wins] = kept[wins]
                    following.extend(_next(front, mask, logits, ends))
            fronts = following
        return labels

    def _decode(
        self, image: np.ndarray, fronts: Sequence[_Front], clicks: Sequence[ClassClicks]
    ) -> tuple[torch.Tensor, list[np.ndarray]]:
        """Return logits, B x h x w, and B arrays (H, W) float32 at the size of the slices."""
        planes = [_rgb(image[front.slice]) for front in fronts]
        hashes = [hash_pixels(plane) for plane in planes]
        embeddings = embedding_cache(self.backbone).get(self.backbone, planes, hashes)
        rows = []
        for front, embedding in zip(fronts, embeddings, strict=True):
            points = _points(clicks[front.row], front.slice, image.shape[1], image.shape[2])
            logits = front.logits if self.backbone.takes_mask_input else None
            ambiguous = front.box is None and len(points) == 1
            rows.append(PromptRow(embedding, front.box, points, logits, ambiguous))
        with torch.inference_mode():
            logits = self.backbone.decode(rows).logits
            high = self.backbone.to_image(logits, embeddings)
            arrays = [one.float().cpu().numpy() for one in high]
        if ill := [n for n, one in enumerate(arrays) if not np.isfinite(one).all()]:
            names = [f"slice {fronts[n].slice}" for n in ill]
            raise NonFiniteError(self.backbone.name, "logits", ill, names)
        return logits, arrays


def _anchors(
    row: int,
    shape: tuple[int, ...],
    box: VolumeBox | None,
    clicks: ClassClicks,
    before: np.ndarray | None,
) -> list[_Front]:
    """Return the slices of a class on which box or clicks alone are the prompts."""
    _, height, width = shape
    anchors = {}
    for index in sorted({z for z, _, _ in clicks.foreground}):
        places = [(y, x) for z, y, x in clicks.foreground if z == index]
        around = None
        if before is not None and before[index].any():
            mask = before[index].copy()
            mask[tuple(np.array(places).T)] = True
            around = _box_around(mask)
        anchors[index] = _Front(row, index, 0, index, around)
    if box is not None:
        rectangle = AddBox(
            box.z_mid_x_min / width,
            box.z_mid_y_min / height,
            (box.z_mid_x_max + 1) / width,
            (box.z_mid_y_max + 1) / height,
        )
        anchors[box.z_mid] = _Front(row, box.z_mid, 0, box.z_mid, rectangle)
    return [anchors[index] for index in sorted(anchors)]


def _ends(
    anchors: Sequence[_Front], depth: int, boxes: Sequence[VolumeBox] | None
) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the first and last slice that an anchor is responsible for, by class and slice."""
    ends = {}
    for row in {front.row for front in anchors}:
        slices = [front.slice for front in anchors if front.row == row]
        low, high = (0, depth - 1) if boxes is None else (boxes[row].z_min, boxes[row].z_max)
        for at, index in enumerate(slices):
            first = (slices[at - 1] + index) // 2 + 1 if at else min(low, index)
            last = (index + slices[at + 1]) // 2 if at + 1 < len(slices) else max(high, index)
            ends[row, index] = (first, last)
    return ends


def _next(
    front: _Front,
    mask: np.ndarray,
    logits: torch.Tensor,
    ends: dict[tuple[int, int], tuple[int, int]],
) -> list[_Front]:
    """Return the slices that follow on one that has a mask."""
    if front.step:
        ways = [(front.step, front.last)]
    else:
        first, last = ends[front.row, front.slice]
        ways = [(-1, first), (1, last)]
    box = _box_around(mask)
    return [
        _Front(front.row, front.slice + step, step, last, box, logits)
        for step, last in ways
        if (last - front.slice) * step > 0
    ]


def _box_around(mask: np.ndarray) -> AddBox:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    height, width = mask.shape
    x1, y1 = columns[0] / width, rows[0] / height
    x2, y2 = (columns[-1] + 1) / width, (rows[-1] + 1) / height
    dx, dy = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
    return AddBox(
        float(max(0.0, x1 - dx)),
        float(max(0.0, y1 - dy)),
        float(min(1.0, x2 + dx)),
        float(min(1.0, y2 + dy)),
    )


def _points(clicks: ClassClicks, index: int, height: int, width: int) -> tuple[AddPoint, ...]:
    return tuple(
        AddPoint((x + 0.5) / width, (y + 0.5) / height, positive)
        for places, positive in ((clicks.foreground, True), (clicks.background, False))
        for z, y, x in places
        if z == index
    )


def _rgb(plane: np.ndarray) -> np.ndarray:
    return plane if plane.ndim == 3 else np.repeat(plane[:, :, None], 3, axis=2)
