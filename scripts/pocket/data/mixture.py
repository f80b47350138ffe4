"""Mixture of training images: four sources, targets in each image, all by arithmetic.

Batch number n of process r is drawn from the generator of (seed, r, n) and from nothing else, so a
run that was killed goes on with the very images it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import Dataset

from medseg_gym.cases import load_cases
from medseg_gym.cases.phantoms import CASES_PER_IMAGE
from scripts.pocket.config import PocketConfig
from scripts.pocket.data.augment import recolour, turn, zoom
from scripts.pocket.data.shapes import draw_shapes
from scripts.pocket.data.views import SIDE
from scripts.pocket.teacher import MAX_AREA, MIN_AREA, read_teaching_set

# Shares of the wells. Views are real images (and the phantoms that the teacher has seen).
WELLS = {
    "distil": {"phantoms": 0.40, "hard": 0.12, "shapes": 0.16, "views": 0.32},
    "scratch": {"phantoms": 0.40, "hard": 0.12, "shapes": 0.24, "views": 0.24},
}
LEAST = 16  # pixels of a target after augmentation
MOST = 0.8  # of the image


@dataclass
class Drawn:
    """One image.

    Args:
        image: (S, S, 3) uint8.
        targets: (K, S, S) bool, to choose from.
        regions: (S, S) integers, equal where pixels belong together.
        embedding: (C, g, g) float16 of the teacher, or None.
    """

    image: np.ndarray
    targets: np.ndarray
    regions: np.ndarray
    embedding: np.ndarray | None = None


@dataclass
class Batch:
    """B images with T targets each, as tensors.

    Args:
        pixels: B x 3 x S x S uint8.
        truths: B·T x S x S bool.
        regions: B x S x S int64.
        embeddings: B' x C x g x g float16 of the images that the teacher has seen.
        taught: B' positions of those images.
        seed: Words for the generator that simulates the prompts.
    """

    pixels: torch.Tensor
    truths: torch.Tensor
    regions: torch.Tensor
    embeddings: torch.Tensor
    taught: torch.Tensor
    seed: tuple[int, ...]


class Mixture(Dataset):
    """Batches by number.

    Args:
        config: Recipe, seed and sizes.
        teaching: Folder of the teaching set.
        rank: Of the process.
    """

    def __init__(self, config: PocketConfig, teaching: Path, rank: int = 0) -> None:
        self.config, self.rank = config, rank
        self.wells = WELLS[config.recipe]
        self.shards = read_teaching_set(teaching)
        self.views = [
            (shard, place)
            for shard in self.shards
            for place in range(len(shard["image"]))
            # Without a teacher a phantom view teaches nothing that phantoms do not.
            if config.recipe == "distil" or not shard["synthetic"][place]
        ]
        self.sources = {
            "phantoms": load_cases("phantoms", "train"),
            "hard": load_cases("phantoms:hard", "train"),
        }

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, number: int) -> Batch:
        """Draw batch `number`."""
        words = (self.config.seed, self.rank, number)
        rng = np.random.default_rng(words)
        pixels: list[np.ndarray] = []
        truths: list[np.ndarray] = []
        regions, embeddings, taught = [], [], []
        while len(pixels) < self.config.images:
            well = str(rng.choice(list(self.wells), p=list(self.wells.values())))
            drawn = getattr(self, f"_{well}")(rng)
            chosen = self._choose(drawn, rng)
            if chosen is None:
                continue
            if drawn.embedding is not None:
                taught.append(len(pixels))
                embeddings.append(drawn.embedding)
            pixels.append(drawn.image)
            truths += chosen
            regions.append(drawn.regions)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2))),
            torch.from_numpy(np.stack(truths)),
            torch.from_numpy(np.stack(regions).astype(np.int64)),
            torch.from_numpy(np.stack(embeddings)) if embeddings else torch.zeros(0),
            torch.as_tensor(taught, dtype=torch.int64),
            (*words, 1),
        )

    def _choose(self, drawn: Drawn, rng: np.random.Generator) -> list[np.ndarray] | None:
        areas = drawn.targets.sum((1, 2))
        usable = np.flatnonzero((areas >= LEAST) & (areas <= MOST * SIDE * SIDE))
        if not len(usable):
            return None
        count = self.config.targets
        order = rng.permutation(usable)
        picked = [order[i % len(order)] for i in range(count)]
        return [np.ascontiguousarray(drawn.targets[i]) for i in picked]

    # the wells -----------------------------------------------------------------------------------
    def _phantoms(self, rng: np.random.Generator, name: str = "phantoms") -> Drawn:
        source = self.sources[name]
        first = CASES_PER_IMAGE * int(rng.integers(len(source) // CASES_PER_IMAGE))
        cases = [source[first + i] for i in range(CASES_PER_IMAGE)]
        targets = np.stack([case.mask for case in cases])
        regions = (targets * (1 << np.arange(len(cases)))[:, None, None]).sum(0)
        return _varied(
            Drawn(cases[0].image, targets, regions), rng, flips=0.5, zooms=0.35, tones=0.5
        )

    def _hard(self, rng: np.random.Generator) -> Drawn:
        return self._phantoms(rng, "hard")

    def _shapes(self, rng: np.random.Generator) -> Drawn:
        image, labels = draw_shapes(rng)
        names = np.unique(labels[labels > 0])
        names = rng.permutation(names)[:8]
        targets = labels[None] == names[:, None, None]
        return _varied(Drawn(image, targets, labels), rng, flips=0.0, zooms=0.2, tones=0.3)

    def _views(self, rng: np.random.Generator) -> Drawn:
        shard, place = self.views[int(rng.integers(len(self.views)))]
        image = shard["image"][place].numpy()
        labels, regions = shard["labels"][place].numpy(), shard["regions"][place].numpy()
        if shard["synthetic"][place]:
            targets = [labels >> i & 1 > 0 for i in range(CASES_PER_IMAGE)]
        else:
            targets = [*_labelled(labels, rng, 4), *_even(regions, rng, 2)]
        embedding = None
        if self.config.recipe == "distil":
            embedding = shard["embedding"][place].numpy()
            own = torch.nonzero(shard["owner"] == place).flatten().numpy()
            packed = shard["mask"].numpy()[rng.permutation(own)[:3]]
            targets += list(np.unpackbits(packed, axis=-1).reshape(-1, SIDE, SIDE).astype(bool))
        stacked = np.stack(targets) if targets else np.zeros((0, SIDE, SIDE), bool)
        return _varied(
            Drawn(image, stacked, regions, embedding), rng, flips=1.0, zooms=0.4, tones=0.8
        )


def _labelled(labels: np.ndarray, rng: np.random.Generator, limit: int) -> list[np.ndarray]:
    """Targets from a package's own labels, whole or a single piece."""
    masks = []
    for name in rng.permutation(np.unique(labels[labels > 0]))[:limit]:
        mask = labels == name
        if rng.random() < 0.5:
            pieces, _ = ndimage.label(mask)
            sizes = np.bincount(pieces.ravel())[1:]
            large = 1 + np.flatnonzero(sizes >= MIN_AREA // 2)
            if len(large):
                mask = pieces == rng.choice(large)
        masks.append(mask)
    return masks


def _even(regions: np.ndarray, rng: np.random.Generator, limit: int) -> list[np.ndarray]:
    """Targets from over-segmentation."""
    areas = np.bincount(regions.ravel())
    names = np.flatnonzero((areas >= MIN_AREA) & (areas <= MAX_AREA))
    names = names[names > 0]
    return [regions == name for name in rng.permutation(names)[:limit]]


def _varied(
    drawn: Drawn, rng: np.random.Generator, *, flips: float, zooms: float, tones: float
) -> Drawn:
    """Augment: symmetries, zoom and tone, each with its probability."""
    image, targets, regions, embedding = (
        drawn.image, drawn.targets, drawn.regions, drawn.embedding,
    )  # fmt: skip
    if rng.random() < flips:
        symmetry = int(rng.integers(8))
        image, regions = turn(image, symmetry), turn(regions, symmetry)
        targets = turn(targets, symmetry, (1, 2))
        if embedding is not None:
            # The teacher is not exactly equivariant; nearly is near enough to be taught by.
            embedding = np.ascontiguousarray(turn(embedding, symmetry, (1, 2)))
    if rng.random() < zooms:
        planes = np.concatenate([regions[None].astype(np.int32), targets.astype(np.int32)])
        image, planes = zoom(np.ascontiguousarray(image), planes, rng)
        regions, targets, embedding = planes[0], planes[1:].astype(bool), None
    if rng.random() < tones:
        image = recolour(image, rng)
    return Drawn(np.ascontiguousarray(image), targets, regions, embedding)
