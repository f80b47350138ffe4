"""SAM's prompt encoder over rows of different length, with and without mask input.

`segment_anything` and `sam2` name its weights alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medseg_gym.backbones.base import PromptRow
from medseg_gym.backbones.collate import INERT, TokenBatch


class PromptEmbedder:
    """Embeds collated prompt tokens and mask inputs with a prompt encoder's weights.

    Args:
        encoder: A `PromptEncoder` of segment_anything's shape, in its final place.
        mask_limit: Mask inputs are clamped to ± this before they are embedded; None leaves them.
    """

    def __init__(self, encoder: Any, mask_limit: float | None = None) -> None:
        self.encoder = encoder
        self.mask_limit = mask_limit
        # Row label - INERT: nothing for padding, then SAM's labels -1, 0, 1, 2, 3.
        kinds = [e.weight for e in (encoder.not_a_point_embed, *encoder.point_embeddings)]
        self._label_table = torch.cat([torch.zeros_like(kinds[0]), *kinds]).detach()

    def tokens(self, batch: TokenBatch) -> torch.Tensor:
        """Embed collated tokens: B x N x C."""
        encoding = self.encoder.pe_layer.forward_with_coords(
            batch.coords + 0.5, self.encoder.input_image_size
        )
        return encoding * (batch.labels >= 0)[..., None] + self._label_table[batch.labels - INERT]

    def dense(self, rows: Sequence[PromptRow]) -> torch.Tensor:
        """Embed mask inputs: B x C x h x w, or 1 x C x 1 x 1 where no row has one."""
        no_mask = self.encoder.no_mask_embed.weight[:, :, None, None]
        given = [row.mask_input for row in rows if row.mask_input is not None]
        if not given:
            return no_mask
        blank = torch.zeros_like(given[0])
        stacked = torch.stack([blank if r.mask_input is None else r.mask_input for r in rows])
        if self.mask_limit is not None:
            stacked = stacked.clamp(-self.mask_limit, self.mask_limit)
        dense = self.encoder.mask_downscaling(stacked[:, None])
        if len(given) == len(rows):
            return dense
        has_mask = torch.as_tensor([r.mask_input is not None for r in rows], device=dense.device)
        return torch.where(has_mask[:, None, None, None], dense, no_mask)
