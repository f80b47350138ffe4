"""Decoding alone: our batch against the predictor's own calls, on embeddings made before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.shared.meters import synchronise
from benchmarks.throughput.measurements import writable_images
from benchmarks.throughput.reference_predictors import PromptsInForce, ReferencePredictor
from medseg_gym.backbones import Backbone, Embedding, PromptRow
from medseg_gym.cases import Case
from medseg_gym.prompts import AddBox, AddPoint


@dataclass(frozen=True)
class DecodeRun:
    """Seconds for the same rows, ours and theirs, one per repetition, and the largest difference.

    `gap` is the largest difference between two logits of a mask at full size.
    """

    ours: list[float]
    theirs: list[float]
    gap: float


def run_decoding(
    backbone: Backbone,
    predictor: ReferencePredictor,
    cases: Sequence[Case],
    num_rows: int,
    repetitions: int,
) -> DecodeRun:
    """Decode rows on embeddings made before, each in memory of its own, up to full-size logits.

    Args:
        backbone: Ours.
        predictor: Theirs.
        cases: Few suffice: the rows take turns at copies of their embeddings.
        num_rows: Rows in a call.
        repetitions: Of each, taking turns.
    """
    boxes_only = "point" not in backbone.trained_kinds
    places = np.random.default_rng(0).uniform(0.05, 0.95, (num_rows, 3, 2))
    ours: list[PromptRow] = []
    theirs: list[PromptsInForce] = []
    with predictor.precision():
        made = predictor.encode(writable_images(cases))
    embeddings = backbone.encode([case.image for case in cases])
    features = [_copy(made[i % len(cases)]) for i in range(num_rows)]
    for i, ((x1, y1), (x2, y2), (x, y)) in enumerate(places.tolist()):
        box = AddBox(x1, y1, x2, y2) if boxes_only or i % 2 else None
        points = () if boxes_only else (AddPoint(x1, y1), AddPoint(x2, y2, False), AddPoint(x, y))
        embedding = embeddings[i % len(cases)]
        copied = Embedding(_copy(embedding.features), embedding.image_size, embedding.input_size)
        ours.append(PromptRow(copied, box, points))
        theirs.append(PromptsInForce(box, points))
    if backbone.takes_mask_input:  # a second step: logits of the first are fed back
        with predictor.precision():
            first = predictor.predict(features, theirs)
        for i, answer in enumerate(first):
            row, asked = ours[i], theirs[i]
            fed = torch.as_tensor(answer.logits, device=backbone.device).reshape(
                answer.logits.shape[-2:]
            )
            ours[i] = PromptRow(row.embedding, row.box, row.points, fed)
            theirs[i] = PromptsInForce(asked.box, asked.points, answer.logits)

    def decode_ours() -> list[np.ndarray]:
        with torch.inference_mode():
            prediction = backbone.decode(ours)
            return [
                full.cpu().numpy()
                for full in backbone.to_image(prediction.logits, [row.embedding for row in ours])
            ]

    def decode_theirs() -> list[np.ndarray]:
        with predictor.precision():
            return [answer.mask for answer in predictor.predict(features, theirs, logits=True)]

    pairs = zip(decode_ours(), decode_theirs(), strict=True)  # warm-up too
    gap = max(float(abs(one - other).max()) for one, other in pairs)
    seconds: dict[Any, list[float]] = {decode_ours: [], decode_theirs: []}
    for repetition in range(repetitions):
        for decode in (decode_ours, decode_theirs)[:: 1 if repetition % 2 else -1]:
            synchronise(backbone.device)
            began = time.perf_counter()
            decode()
            synchronise(backbone.device)
            seconds[decode].append(time.perf_counter() - began)
    return DecodeRun(seconds[decode_ours], seconds[decode_theirs], gap)


def _copy(kept: Any) -> Any:
    """The same features with tensors in memory of their own."""
    if isinstance(kept, torch.Tensor):
        return kept.clone()
    if isinstance(kept, Embedding):
        return Embedding(_copy(kept.features), kept.image_size, kept.input_size)
    return type(kept)(map(_copy, kept)) if isinstance(kept, list | tuple) else kept
