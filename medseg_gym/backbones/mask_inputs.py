"""Masks that no decoder has made, as the logits that a decoder is fed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import Backbone, Embedding
from medseg_gym.backbones.remote.wire import ServedFacts

CERTAIN = 8.0
"""Logit inside a mask, and below zero outside; a decoder's own are of about that size."""


class MaskInputs:
    """Turns masks of images into low-resolution logits of a backbone.

    Args:
        backbone: Tried out on noise when the first mask comes (see `find_facts`).
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def of(
        self, masks: Sequence[np.ndarray | None], embeddings: Sequence[Embedding]
    ) -> list[torch.Tensor | None]:
        """Return logits h x w on the backbone's device, None for no mask.

        A backbone that takes no mask input gets none.

        Args:
            masks: H x W bool each, or None.
            embeddings: Of their images.

        Raises:
            BackboneError: Nobody knows how the backbone's logits lie over an image.
        """
        if not self._backbone.takes_mask_input or all(mask is None for mask in masks):
            return [None] * len(masks)
        return [
            None if mask is None else self._logits(mask, embedding)
            for mask, embedding in zip(masks, embeddings, strict=True)
        ]

    @cached_property
    def _facts(self) -> ServedFacts:
        from medseg_gym.backbones.remote.ends import find_facts

        known = getattr(self._backbone, "facts", None)
        return known if isinstance(known, ServedFacts) else find_facts(self._backbone)

    def _logits(self, mask: np.ndarray, embedding: Embedding) -> torch.Tensor:
        facts = self._facts
        inside = torch.from_numpy(mask.astype(np.float32))[None, None]
        if facts.framing == "padded":
            height, width = embedding.input_size
            inside = _shrunk(inside, (height, width))
            right, below = facts.frame_side - width, facts.frame_side - height
            inside = F.pad(inside, (0, right, 0, below))
        share = _shrunk(inside, facts.logits_size)[0, 0]
        return to_device((2 * share - 1) * CERTAIN, self._backbone.device)


def _shrunk(inside: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(inside.shape[2:]) == tuple(size):
        return inside
    return F.interpolate(inside, size, mode="bilinear", align_corners=False, antialias=True)
