"""Rows of tokens and their images, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from medseg_agents.grpo.rollout.token_rows import HashedImage


@dataclass(frozen=True)
class ProcessedImages:
    """Images of several rows.

    Args:
        tensors: `images`, by what the image processor calls its outputs, each distinct one once,
            and `image_index` (K,) int64, which of them each of the K shown ones is.
        grids: By row, K_i x 3 int64: frames, rows and columns of patches of each shown one.
    """

    tensors: dict[str, Any]
    grids: list[torch.Tensor] = field(default_factory=list)


def process_images(
    shown: Sequence[Sequence[HashedImage]], share: bool, processor: Any, device: torch.device | str
) -> ProcessedImages:
    """Process the images of rows, distinct ones once.

    Args:
        shown: By row, in the order of their place holders.
        share: False repeats images as they are shown.
        processor: Of the model.
        device: Where the tensors go.
    """
    places: dict[Any, int] = {}
    distinct: list[HashedImage] = []
    of: list[list[int]] = []
    for number, images in enumerate(shown):
        of.append([])
        for index, image in enumerate(images):
            key = image.key if share else (number, index)
            if key not in places:
                places[key] = len(distinct)
                distinct.append(image)
            of[-1].append(places[key])
    made: dict[str, torch.Tensor] = {}
    if distinct:
        made = dict(
            processor.image_processor(
                images=[Image.fromarray(image.pixels) for image in distinct], return_tensors="pt"
            )
        )
    grid = made.get("image_grid_thw")
    flat = [place for row in of for place in row]
    return ProcessedImages(
        {
            "images": {name: value.to(device) for name, value in made.items()},
            "image_index": torch.tensor(flat, dtype=torch.long, device=device),
        },
        [torch.zeros(0, 3, dtype=torch.long) if grid is None else grid[row] for row in of],
    )


def pad(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows of tokens at the right.

    Returns:
        Tokens and their mask, 1 where they are no padding; both B x L int64.
    """
    length = max(map(len, rows))
    ids = np.zeros((len(rows), length), np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask
