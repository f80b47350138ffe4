"""Images with the places of their targets, drawn once and kept in files of a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from benchmarks.shared.workers import worker_pool
from medseg_gym.annotators.box import tight_box
from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.prompts import AddBox
from medseg_gym.storage.atomic_write import atomic_path

SHARD = 1000  # images of a file


@dataclass(frozen=True)
class Batch:
    """Some images and where their targets are; K is the most targets of an image.

    Args:
        images: B x S x S x 3 uint8.
        targets: B x K int64, positions in the case source's target texts; 0 where none is known.
        known: B x K bool, of which targets it is known where they are, or that they are absent.
        covers: B x K x G x G float32, share of each cell that a target covers, 0..1.
        boxes: B x K x 4 float32 tight boxes (left, top, right, bottom) in shares of the image;
            not a number where a target is absent or not known.
        places: Places along a side in which boxes are told.
    """

    images: np.ndarray
    targets: torch.Tensor
    known: torch.Tensor
    covers: torch.Tensor
    boxes: torch.Tensor
    places: int

    @property
    def shown(self) -> torch.Tensor:
        """Mask of the targets that are in their image, B x K bool."""
        return self.known & ~torch.isnan(self.boxes).any(-1)

    def shrunk(self, side: int) -> Batch:
        """Return the same with smaller images, and as much fewer cells.

        Args:
            side: Of the images, in pixels. Where the old cells do not divide into the new ones, a
                new one is the mean of all that it touches.
        """
        images = torch.from_numpy(self.images).movedim(-1, 1)
        small = resize(images, [side, side], InterpolationMode.BILINEAR, antialias=True)
        cells = self.covers.shape[-1] * side // self.images.shape[1]
        covers = functional.adaptive_avg_pool2d(self.covers, cells)
        return replace(self, images=small.movedim(1, -1).numpy(), covers=covers)


@dataclass(frozen=True)
class Scenes:
    """Images and where their targets are.

    Args:
        images: N x S x S x 3 uint8, as the model is shown them.
        covers: For each image k x G x G uint8, how much of each cell a target covers; 255 is all.
        targets: For each image (k,) int64, positions in the case source's target texts.
        sides: For each image k x 4 float64, tight boxes (left, top, right, bottom) in shares of the
            image; not a number where the target is absent.
    """

    images: np.ndarray
    covers: Sequence[np.ndarray]
    targets: Sequence[np.ndarray]
    sides: Sequence[np.ndarray]

    @classmethod
    def read(cls, files: Sequence[Path]) -> Scenes:
        """Read files that `draw_scenes` wrote."""
        images: list[np.ndarray] = []
        covers, targets, sides = [], [], []
        for file in files:
            with np.load(file) as part:
                images.append(part["images"])
                ends = part["counts"].cumsum()[:-1]
                covers += np.split(part["covers"], ends)
                targets += np.split(part["targets"], ends)
                sides += np.split(part["sides"], ends)
        return cls(np.concatenate(images), covers, targets, sides)

    def boxes(self, image: int) -> list[AddBox | None]:
        """Tight boxes of the targets of an image; None where one is absent."""
        return [None if np.isnan(sides).any() else AddBox(*sides) for sides in self.sides[image]]

    def batch(self, chosen: np.ndarray, turns: np.ndarray) -> Batch:
        """Return images and their targets, each turned by quarters.

        Args:
            chosen: (B,) int.
            turns: (B,) quarter turns.
        """
        longest, grid = max(len(self.targets[i]) for i in chosen), self.covers[0].shape[-1]
        shape = len(chosen), longest
        targets, known = np.zeros(shape, np.int64), np.zeros(shape, bool)
        covers = np.zeros((*shape, grid, grid), np.uint8)
        boxes = np.full((*shape, 4), np.nan, np.float32)
        for row, (i, turn) in enumerate(zip(chosen, turns, strict=True)):
            count = len(self.targets[i])
            targets[row, :count], known[row, :count] = self.targets[i], True
            covers[row, :count] = np.rot90(self.covers[i], turn, (1, 2))
            boxes[row, :count] = turned_boxes(self.sides[i], turn)
        images = [np.rot90(self.images[i], t) for i, t in zip(chosen, turns, strict=True)]
        return Batch(
            np.stack(images),
            torch.from_numpy(targets),
            torch.from_numpy(known),
            torch.from_numpy(covers).float() / 255,
            torch.from_numpy(boxes),
            self.images.shape[1],
        )


def turned_boxes(boxes: np.ndarray, turn: int) -> np.ndarray:
    """Return boxes of an image that `np.rot90` turns, ... x 4 (left, top, right, bottom)."""
    for _ in range(turn % 4):
        left, top, right, bottom = np.moveaxis(boxes, -1, 0)
        boxes = np.stack([top, 1 - right, bottom, 1 - left], -1)
    return boxes


def draw_scenes(
    folder: Path,
    cases: str,
    split: str,
    images: range,
    chat: ChatOptions,
    grid: int,
    per_image: int,
    workers: int,
) -> list[Path]:
    """Draw what is not drawn yet.

    Args:
        folder: Of the files.
        cases: Case spec whose cases come image by image, `per_image` of each; all targets that
            the source knows of an image are kept.
        split: "train" or "val".
        images: Numbers of the images.
        chat: How the model is shown them.
        grid: Cells on each side, G.
        per_image: Cases of an image.
        workers: Processes.

    Returns:
        The files, in order.
    """
    jobs, files = [], []
    for first in range(images.start, images.stop, SHARD):
        file = folder / f"{first:06d}.npz"
        files.append(file)
        if not file.exists():
            last = min(first + SHARD, images.stop)
            jobs.append((file, cases, split, first, last, chat, grid, per_image))
    if jobs:
        folder.mkdir(parents=True, exist_ok=True)
        with worker_pool(min(workers, len(jobs))) as pool:
            for done in [pool.submit(_draw, *job) for job in jobs]:
                done.result()
    return files


def _draw(
    file: Path,
    cases: str,
    split: str,
    first: int,
    last: int,
    chat: ChatOptions,
    grid: int,
    per_image: int,
) -> None:
    torch.set_num_threads(1)
    source, view = load_cases(cases, split), ChatView(chat)
    assert source.targets is not None  # of phantoms
    number = {text: position for position, text in enumerate(source.targets)}
    images, counts, covers, targets, sides = [], [], [], [], []
    for image in range(first, last):
        images.append(view.image(source[image * per_image]))
        outlines = source.outlines(image * per_image)
        counts.append(len(outlines))
        masks = np.stack([mask for _, mask in outlines])
        cells = functional.interpolate(
            torch.from_numpy(masks)[None].float(), (grid, grid), mode="area"
        )
        covers.append((cells[0] * 255).round().byte().numpy())
        targets += [number[text] for text, _ in outlines]
        sides += [_sides(tight_box(mask)) for mask in masks]
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            images=np.stack(images),
            counts=np.array(counts),
            covers=np.concatenate(covers),
            targets=np.array(targets),
            sides=np.array(sides),
        )


def _sides(box: AddBox | None) -> tuple[float, float, float, float]:
    return (np.nan,) * 4 if box is None else (box.x1, box.y1, box.x2, box.y2)
