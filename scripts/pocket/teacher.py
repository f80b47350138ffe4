"""The teaching set: views of real images and phantoms with what LiteMedSAM makes of them.

The teacher is slow (about half a second an image on two cores), so it looks once: its embeddings,
pooled to the pupil's grid, and its masks of candidate boxes go to shards on disk. A shard is
written whole; a run that was killed goes on with the first missing one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from medseg_gym.backbones import load
from medseg_gym.backbones.finite import NonFiniteError, rows_not_finite
from medseg_gym.backbones.protocol import Backbone, Embedding, PromptRow
from medseg_gym.cases import load_cases
from medseg_gym.cases.phantoms import CASES_PER_IMAGE
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddBox
from medseg_gym.storage.atomic_write import atomic_path
from scripts.pocket.data.views import SIDE, square_view

GRID = 32  # cells a side of the pooled embeddings, as the pupil has them
SHARD = 25  # views
BOXES = 8  # candidate boxes per real view
MIN_IOU = 0.8  # predicted by the teacher, for a mask to be kept
MIN_STABILITY = 0.85  # IoU of its masks at logit +1 and -1 (Kirillov et al. 2023, section B)
MIN_AREA, MAX_AREA = 60, 0.6 * SIDE * SIDE  # pixels of a mask or a candidate region
VIEWS = {"chest": 2, "brain2": 4, "mni": 2, "nuclei": 10}  # per image; else OTHER_VIEWS
OTHER_VIEWS = 6


@dataclass(frozen=True)
class View:
    """One square image before the teacher has seen it.

    Args:
        image: (SIDE, SIDE, 3) uint8.
        labels: (SIDE, SIDE) int16: the package's labels, 0 for none; of a phantom, whose targets
            overlap, bit i for its target i.
        synthetic: Whether it is a phantom.
    """

    image: np.ndarray
    labels: np.ndarray
    synthetic: bool


def make_teaching_set(
    real_images: Path, folder: Path, phantoms: int, seed: int = 0
) -> Iterator[str]:
    """Let the teacher look at everything; yields a line per shard.

    Args:
        real_images: Written by `scripts/pocket/data/real_images.py`.
        folder: Where shards go.
        phantoms: Images of the phantoms' train split to add.
        seed: Of the views.

    Raises:
        MedSegError: The images are missing.
    """
    if not real_images.is_file():
        raise MedSegError(
            f"{real_images} is missing; make it with `python -m scripts.pocket.data.real_images "
            f"--output {real_images}`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    plan = [*_plan_real_images(real_images, seed), *_plan_phantoms(phantoms)]
    order = np.random.default_rng(seed).permutation(len(plan))  # every shard holds some of each
    shards = [order[start : start + SHARD] for start in range(0, len(plan), SHARD)]
    teacher: Backbone | None = None
    for number, members in enumerate(shards):
        file = folder / f"teacher-{number:04d}.safetensors"
        if not file.exists():
            teacher = teacher or load("lite_medsam", dtype="bfloat16")
            tensors = _look(teacher, [plan[i]() for i in members], seed=(seed, number))
            with atomic_path(file) as temporary:
                save_file(tensors, temporary)
        yield f"{file.name}: {number + 1} of {len(shards)}"


def _plan_real_images(real_images: Path, seed: int) -> list:
    archive = np.load(real_images)
    plan = []
    names = [name.removeprefix("image/") for name in archive.files if name.startswith("image/")]
    for place, name in enumerate(names):
        for view in range(VIEWS.get(name.split("-")[0], OTHER_VIEWS)):

            def make(name: str = name, words: tuple = (seed, place, view)) -> View:
                labels = archive[f"labels/{name}"] if f"labels/{name}" in archive.files else None
                rng = np.random.default_rng(words)
                return View(
                    *square_view(archive[f"image/{name}"], labels, rng, not words[2]), False
                )

            plan.append(make)
    return plan


def _plan_phantoms(count: int) -> list:
    source = load_cases("phantoms", "train")

    def make(number: int) -> View:
        cases = [source[CASES_PER_IMAGE * number + i] for i in range(CASES_PER_IMAGE)]
        bits = sum(case.mask.astype(np.int16) << i for i, case in enumerate(cases))
        return View(cases[0].image, np.asarray(bits, np.int16), True)

    last = len(source) // CASES_PER_IMAGE - 1
    return [lambda i=i: make(last - i) for i in range(count)]


def _look(teacher: Backbone, views: list[View], seed: tuple) -> dict[str, torch.Tensor]:
    """Return a shard: image, labels, regions, embedding, synthetic; masks and their owners."""
    rng = np.random.default_rng(seed)
    embeddings = teacher.encode([view.image for view in views])
    regions = [view.labels if view.synthetic else over_segment(view.image, rng) for view in views]
    masks, owners = [], []
    for owner, view in enumerate(views):
        if not view.synthetic:
            taught_masks = teacher_masks(
                teacher, embeddings[owner], regions[owner], view.image, rng
            )
            masks += taught_masks
            owners += [owner] * len(taught_masks)
    packed = np.packbits(np.reshape(masks, (-1, SIDE * SIDE)).astype(bool), axis=1)
    pooled = [F.adaptive_avg_pool2d(e.features[0].float(), GRID).half() for e in embeddings]
    return {
        "image": torch.from_numpy(np.stack([view.image for view in views])),
        "labels": torch.from_numpy(np.stack([view.labels for view in views])),
        "regions": torch.from_numpy(np.stack(regions)),
        "embedding": torch.stack(pooled),
        "mask": torch.from_numpy(packed),
        "owner": torch.as_tensor(owners, dtype=torch.int64),
        "synthetic": torch.as_tensor([view.synthetic for view in views]),
    }


def over_segment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Regions of even look, (SIDE, SIDE) int16 from 1 (Felzenszwalb and Huttenlocher 2004)."""
    segments = felzenszwalb(
        image,
        scale=float(np.exp(rng.uniform(np.log(80), np.log(800)))),
        sigma=float(rng.uniform(0.6, 1.6)),
        min_size=MIN_AREA,
    )
    regions: np.ndarray = (segments + 1).astype(np.int16)
    return regions


def teacher_masks(
    teacher: Backbone,
    embedding: Embedding,
    regions: np.ndarray,
    image: np.ndarray,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The teacher's surer masks of boxes round regions and round random places."""
    slices = ndimage.find_objects(regions.astype(np.int32))
    areas = np.bincount(regions.ravel(), minlength=len(slices) + 1)[1:]
    wanted = [s for s, a in zip(slices, areas, strict=True) if s and MIN_AREA <= a <= MAX_AREA]
    boxes = []
    for k in rng.permutation(len(wanted))[: BOXES - 2]:
        rows, columns = wanted[k]
        width, height = columns.stop - columns.start, rows.stop - rows.start
        grown = rng.uniform(0, 0.15, 4) * [-width, -height, width, height]
        boxes.append(grown + np.array([columns.start, rows.start, columns.stop, rows.stop]))
    bright = np.argwhere(image.max(axis=2) > 24)
    while len(boxes) < BOXES and len(bright):
        row, column = bright[rng.integers(len(bright))]
        half = np.exp(rng.uniform(np.log(8), np.log(70), 2))
        boxes.append(np.array([column - half[0], row - half[1], column + half[0], row + half[1]]))
    if not boxes:
        return []
    rows_ = [
        PromptRow(embedding, AddBox(*(float(v) for v in (box / SIDE).clip(0, 1)))) for box in boxes
    ]
    logits, iou = teacher.decode(rows_)
    full = torch.stack(teacher.to_image(logits, [embedding] * len(rows_)))
    if ill := rows_not_finite([*full, *iou]):
        raise NonFiniteError(teacher.name, "masks to learn from", [i % len(full) for i in ill])
    core, rim = (full > 1).sum((1, 2)), (full > -1).sum((1, 2))
    stable = core / rim.clamp(min=1)
    areas_ = (full > 0).sum((1, 2))
    good = (
        (iou >= MIN_IOU) & (stable >= MIN_STABILITY) & (areas_ >= MIN_AREA) & (areas_ <= MAX_AREA)
    )
    return [full[i].numpy() > 0 for i in torch.nonzero(good).flatten().tolist()]


def read_teaching_set(folder: Path) -> list[dict[str, torch.Tensor]]:
    """All shards in order.

    Raises:
        MedSegError: There are none.
    """
    files = sorted(folder.glob("teacher-*.safetensors"))
    if not files:
        raise MedSegError(
            f"no teaching set under {folder}; make one with `python -m scripts.pocket teach`"
        )
    return [load_file(file) for file in files]
