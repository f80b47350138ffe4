"""Cases squashed to a square, so that a fraction is the same place in image and mask."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

from medseg_gym.cases import Case
from medseg_gym.episodes import MaskState
from medseg_gym.episodes.masks import group_by_shape, sample_squares
from medseg_gym.errors import MedSegError


class Squares:
    """Squashes images and masks to S x S.

    Args:
        side: S in pixels, 8 to 4096.

    Raises:
        MedSegError: A side out of range.
    """

    def __init__(self, side: int) -> None:
        if not 8 <= side <= 4096:
            raise MedSegError(f"image_size must be in 8..4096 pixels, got {side}")
        self.side = int(side)
        self._images: WeakKeyDictionary[Case, np.ndarray] = WeakKeyDictionary()

    def image(self, case: Case) -> np.ndarray:
        """S x S x 3 uint8, made once per case and kept as long as the case is; do not write."""
        if case not in self._images:
            square = Image.fromarray(case.image).resize(
                (self.side, self.side), Image.Resampling.BILINEAR
            )
            self._images[case] = np.asarray(square)
        return self._images[case]

    def masks_of(self, states: Sequence[MaskState]) -> np.ndarray:
        """Masks of states as N x S x S bool, fresh; those in the host's memory are not fetched."""
        squares = np.zeros((len(states), self.side, self.side), dtype=bool)
        elsewhere = []
        for i, state in enumerate(states):
            if state.square is not None and state.square.width == self.side:
                squares[i] = state.square.array()
            elif state.pixels:
                elsewhere.append(i)
        if elsewhere:
            squares[elsewhere] = self.masks([states[i].mask for i in elsewhere])
        return squares

    def masks(self, masks: Sequence[torch.Tensor]) -> np.ndarray:
        """Masks as N x S x S bool: each sampled at the centres of the square's pixels.

        Args:
            masks: H x W bool each, on one device.
        """
        groups = group_by_shape(masks)
        samples = [
            sample_squares(torch.stack([masks[i] for i in members]), self.side)
            for members in groups
        ]
        sampled = torch.cat(samples).to("cpu").numpy()
        in_order = np.empty_like(sampled)
        in_order[[i for members in groups for i in members]] = sampled
        return in_order
