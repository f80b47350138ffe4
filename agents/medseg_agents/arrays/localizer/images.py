"""Images with all their known targets, drawn once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg_agents.arrays.dagger.labels import cover_shares
from medseg_gym.annotators.box import tight_box
from medseg_gym.cases import CaseSource
from medseg_gym.cases.derived.pool import cases_on_image
from medseg_gym.envs.views.squares import Squares
from medseg_gym.prompts import AddBox


@dataclass(frozen=True)
class OutlinedImages:
    """Images, and what their targets cover.

    Args:
        images: N x S x S x 3 uint8, as the view shows them.
        targets: For each image (k,) int64, as the view counts them: 0 is a text that it does not
            know.
        covers: For each image k x C x C uint8, share of each cell that a target covers, 255 all.
        boxes: For each image its k tight boxes; None where a target is absent.
    """

    images: np.ndarray
    targets: Sequence[np.ndarray]
    covers: Sequence[np.ndarray]
    boxes: Sequence[list[AddBox | None]]

    def __len__(self) -> int:
        return len(self.images)

    def batch(
        self, chosen: Sequence[int], turns: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, filled up to the same number of targets.

        Args:
            chosen: B positions.
            turns: Quarter turns of all of them.

        Returns:
            Images B x 3 x S x S uint8, targets B x K int64, covers B x K x C x C float32 in 0..1,
            and which of the targets are real, B x K bool.
        """
        longest, cells = max(len(self.targets[i]) for i in chosen), self.covers[0].shape[-1]
        targets = np.zeros((len(chosen), longest), np.int64)
        covers = np.zeros((len(chosen), longest, cells, cells), np.uint8)
        real = np.zeros((len(chosen), longest), bool)
        for row, i in enumerate(chosen):
            count = len(self.targets[i])
            targets[row, :count], covers[row, :count] = self.targets[i], self.covers[i]
            real[row, :count] = True
        images = torch.from_numpy(self.images[list(chosen)]).permute(0, 3, 1, 2)
        shares = torch.from_numpy(covers).float() / 255
        turned = (torch.rot90(one, turns, (2, 3)) for one in (images, shares))
        images, shares = (one.contiguous() for one in turned)
        return images, torch.from_numpy(targets), shares, torch.from_numpy(real)


def draw_images(
    source: CaseSource, count: int, targets: Sequence[str], side: int, cells: int, seed: int
) -> OutlinedImages:
    """Draw images with all their cases.

    Args:
        source: To draw from; cases on one image must follow each other.
        count: Most images; fewer where the source has fewer.
        targets: Vocabulary of the view.
        side: S, of the view.
        cells: C, along a side of the covers.
        seed: Of the draw.

    Returns:
        Different images, in random order.
    """
    squares, number = Squares(side), {text: i + 1 for i, text in enumerate(targets)}
    images: list[np.ndarray] = []
    indices, covers, boxes = [], [], []
    seen: set[int] = set()
    for start in np.random.default_rng(seed).permutation(len(source)).tolist():
        if len(images) >= count:
            break
        if start in seen:
            continue
        together = cases_on_image(source, start)
        seen.update(index for index, _ in together)
        cases = [case for _, case in together]
        images.append(squares.image(cases[0]))
        indices.append(np.array([number.get(case.target, 0) for case in cases]))
        covers.append(np.stack([cover_shares(case.mask, cells) for case in cases]))
        boxes.append([tight_box(case.mask) for case in cases])
    return OutlinedImages(np.stack(images), indices, covers, boxes)
