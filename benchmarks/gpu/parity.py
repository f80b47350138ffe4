"""Every backbone family on a device against the same weights on the CPU, in full float32.

Two decodes in a row: boxes and clicks in rows of different length on real images of two sizes, then
the same rows with one more click and each device's own logits fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.rows import FAILED, SKIPPED, Job
from medseg_gym import backbones
from medseg_gym.backbones import Backbone, PromptRow
from medseg_gym.cases import Case, load_cases
from medseg_gym.episodes.masks import measure_masks
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint

LIMIT = 1e-3
"""Largest difference of two logits, or of two predicted IoUs."""

FAMILIES = (
    "pocket",
    "ellipse",
    "lite_medsam?random_weights=true",
    "sam_vit_b?random_weights=true",
    "sam2_t?random_weights=true",
    "sam2.1_t?random_weights=true",
    "sam2.1_b+?random_weights=true",
    "medsam2?random_weights=true",
    "imisnet?random_weights=true",
)
SMALL = (
    "pocket",
    "ellipse",
    "lite_medsam?random_weights=true",
    "sam2_t?random_weights=true&image_size=64",
    "sam2.1_t?random_weights=true&image_size=64",
    "medsam2?random_weights=true&image_size=64",
    "imisnet?random_weights=true&image_size=64",
)
BOX = AddBox(0.2, 0.3, 0.7, 0.8)
CLICKS = (AddPoint(0.4, 0.5), AddPoint(0.8, 0.2, False), AddPoint(0.5, 0.6))


def run(job: Job) -> None:
    """Compare all families."""
    exact_float32()
    job.add("hf:FOLDER", SKIPPED, "has no random weights: it reads a folder of transformers")
    cases = different_cases()
    for name in SMALL if job.small else FAMILIES:
        if job.late(name):
            continue
        try:
            here, there = (backbones.load(name, device=d) for d in ("cpu", job.device))
        except BackboneError as error:
            job.add(name, SKIPPED, str(error))
            continue
        try:
            compare(job, name, here, there, cases)
        except RuntimeError as error:  # torch's, of a missing kernel or memory: the others go on
            job.add(name, FAILED, f"{type(error).__name__}: {str(error).splitlines()[0]}")


def exact_float32() -> None:
    """Multiply float32 as float32, not as TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def different_cases() -> list[Case]:
    """Two real cases whose images differ in size."""
    source = load_cases("samples", "train")
    first = source[0]
    for i in range(1, len(source)):
        if source[i].image.shape != first.image.shape:
            return [first, source[i]]
    return [first, source[1]]


class Answers(NamedTuple):
    """Results of two decodes in a row, on the CPU, and pixels per mask."""

    logits: list[torch.Tensor]
    iou: list[torch.Tensor]
    pixels: list[list[int]]


def compare(job: Job, name: str, here: Backbone, there: Backbone, cases: Sequence[Case]) -> None:
    """Keep the row of one family."""
    with torch.inference_mode():
        one, other = (answer(backbone, cases) for backbone in (here, there))
    gap = max(largest_gap(one.logits, other.logits), largest_gap(one.iou, other.iou))
    pixels = max(
        abs(a - b)
        for first, second in zip(one.pixels, other.pixels, strict=True)
        for a, b in zip(first, second, strict=True)
    )
    spread = float(one.logits[0].std())
    job.compare(
        name, gap, LIMIT, at_most=True,
        shown=f"{gap:.1e}, logits spread by {spread:.2g}, masks differ by {pixels} pixels",
        spread=spread, pixels=pixels, peak_mib=peak_mib(job),
    )  # fmt: skip


def answer(backbone: Backbone, cases: Sequence[Case]) -> Answers:
    """Encode, decode twice, and draw masks."""
    embeddings = backbone.encode([case.image for case in cases])
    prompts: list[tuple[AddBox | None, tuple[AddPoint, ...]]] = [(BOX, ()), (None, CLICKS[:1])]
    prompts += [(BOX, CLICKS[:2]), (None, CLICKS[:2])]
    rows = [
        PromptRow(embedding, box, points, multimask=box is None and len(points) == 1)
        for embedding in embeddings
        for box, points in prompts
    ]
    answers = Answers([], [], [])
    truths = [
        torch.from_numpy(case.mask.copy()).to(backbone.device) for case in cases for _ in prompts
    ]
    for _ in range(2):
        made = backbone.decode(rows)
        images = backbone.to_image(made.logits, [row.embedding for row in rows])
        measured = measure_masks(images, truths, backbone.name, made)
        answers.logits.append(made.logits.float().cpu())
        answers.iou.append(made.iou.float().cpu())
        answers.pixels.append([one.pixels for one in measured])
        takes = backbone.takes_mask_input
        rows = [
            replace(row, points=(*row.points, CLICKS[2]), mask_input=low if takes else None)
            for row, low in zip(rows, made.logits, strict=True)
        ]
    return answers


def largest_gap(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Return the largest difference of two numbers; NaN where one is."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def peak_mib(job: Job) -> Any:
    """Return the most memory that was allocated on the GPU, in MiB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if job.cuda else None
