"""Images with the places of their targets, drawn once and kept in files of a thousand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.shared.workers import worker_pool
from medseg_gym.annotators.box import tight_box
from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.prompts import AddBox
from medseg_gym.storage.atomic_write import atomic_path

SHARD = 1000  # images of a file


@dataclass(frozen=True)
class Scenes:
    """Images and where their targets are.

    Args:
        images: N x S x S x 3 uint8, as the model is shown them.
        covers: N x K x G x G uint8, how much of each cell a target covers; 255 is all of it.
        targets: N x K int64, positions in the case source's target texts.
        sides: N x K x 4 float64, tight boxes (left, top, right, bottom) in shares of the image;
            not a number where the target is absent.
    """

    images: np.ndarray
    covers: np.ndarray
    targets: np.ndarray
    sides: np.ndarray

    @classmethod
    def read(cls, files: Sequence[Path]) -> Scenes:
        """Read files that `draw_scenes` wrote."""
        parts = [np.load(file) for file in files]
        names = ("images", "covers", "targets", "sides")
        return cls(*(np.concatenate([part[name] for part in parts]) for name in names))

    def boxes(self, image: int) -> list[AddBox | None]:
        """Tight boxes of the targets of an image; None where one is absent."""
        return [None if np.isnan(sides).any() else AddBox(*sides) for sides in self.sides[image]]

    def batch(self, chosen: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        """Return images and covers, each turned by quarters.

        Args:
            chosen: (B,) int.
            turns: (B,) quarter turns.

        Returns:
            B x S x S x 3 uint8 and B x K x G x G float32 in 0..1.
        """
        images = [np.rot90(self.images[i], t) for i, t in zip(chosen, turns, strict=True)]
        covers = [np.rot90(self.covers[i], t, (1, 2)) for i, t in zip(chosen, turns, strict=True)]
        return np.stack(images), torch.from_numpy(np.stack(covers)).float() / 255


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
        cases: Case spec whose cases come image by image, `per_image` of each.
        split: "train" or "val".
        images: Numbers of the images.
        chat: How the model is shown them.
        grid: Cells on each side, G.
        per_image: Targets of an image, K.
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
    images, covers, targets, sides = [], [], [], []
    for image in range(first, last):
        together = [source[image * per_image + k] for k in range(per_image)]
        images.append(view.image(together[0]))
        masks = np.stack([case.mask for case in together])
        cells = functional.interpolate(
            torch.from_numpy(masks)[None].float(), (grid, grid), mode="area"
        )
        covers.append((cells[0] * 255).round().byte().numpy())
        targets.append([number[case.target] for case in together])
        sides.append([_sides(tight_box(mask)) for mask in masks])
    with atomic_path(file) as temporary, temporary.open("wb") as out:
        np.savez(
            out,
            images=np.stack(images),
            covers=np.stack(covers),
            targets=np.array(targets),
            sides=np.array(sides),
        )


def _sides(box: AddBox | None) -> tuple[float, float, float, float]:
    return (np.nan,) * 4 if box is None else (box.x1, box.y1, box.x2, box.y2)
