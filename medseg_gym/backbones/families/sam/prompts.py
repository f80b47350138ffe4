"""SAM's prompt encoder over rows of different length, with and without mask input.

`segment_anything` and `sam2` name its weights alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.collate import INERT, TokenBatch
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import PromptRow


class PromptEmbedder:
    """Embeds collated prompt tokens and mask inputs with a prompt encoder's weights.

    Args:
        encoder: A `PromptEncoder` of segment_anything's shape, in its final place.
        mask_limit: Mask inputs are clamped to ± this before they are embedded; None leaves them.
    """

    def __init__(self, encoder: Any, mask_limit: float | None = None) -> None:
        self.encoder = encoder
        self.mask_limit = mask_limit

    def tokens(self, batch: TokenBatch) -> torch.Tensor:
        """Embed collated tokens: B x N x C."""
        encoding = self.encoder.pe_layer.forward_with_coords(
            batch.coords + 0.5, self.encoder.input_image_size
        )
        # Row label - INERT: nothing for padding, then SAM's labels -1, 0, 1, 2, 3.
        kinds = [e.weight for e in (self.encoder.not_a_point_embed, *self.encoder.point_embeddings)]
        table = torch.cat([torch.zeros_like(kinds[0]), *kinds])
        out: torch.Tensor = encoding * (batch.labels >= 0)[..., None] + table[batch.labels - INERT]
        return out

    def with_outputs(
        self, decoder: Any, batch: TokenBatch
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """SAM's output tokens before the prompts': B x (K + 1 + N) x C, and which are not padding.

        The mask is None if nothing is padded.
        """
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        outputs = outputs.expand(len(batch.labels), -1, -1)
        tokens = torch.cat([outputs, self.tokens(batch)], dim=1)
        if not batch.padded:
            return tokens, None
        return tokens, F.pad(batch.labels != INERT, (outputs.shape[1], 0), value=True)

    def embed_masks(
        self, mask_input: torch.Tensor | None, has_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed mask inputs: B x C x h x w, or 1 x C x 1 x 1 where no row has one.

        Args:
            mask_input: B x H x W logits, None if no row has any.
            has_mask: B bool, which rows have one; None for all.
        """
        no_mask: torch.Tensor = self.encoder.no_mask_embed.weight[:, :, None, None]
        if mask_input is None:
            return no_mask
        if self.mask_limit is not None:
            mask_input = mask_input.clamp(-self.mask_limit, self.mask_limit)
        dense: torch.Tensor = self.encoder.mask_downscaling(mask_input[:, None])
        return (
            dense
            if has_mask is None
            else torch.where(has_mask[:, None, None, None], dense, no_mask)
        )

    def dense(self, rows: Sequence[PromptRow]) -> torch.Tensor:
        """Embed the mask inputs of rows, see `embed_masks`."""
        return self.embed_masks(*gather_masks(rows))


def gather_masks(rows: Sequence[PromptRow]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Mask inputs of rows as `PromptEmbedder.embed_masks` takes them."""
    given = [row.mask_input for row in rows if row.mask_input is not None]
    if not given:
        return None, None
    if len(given) == len(rows):
        return torch.stack(given), None
    blank = torch.zeros_like(given[0])
    stacked = torch.stack([blank if r.mask_input is None else r.mask_input for r in rows])
    has_mask = [row.mask_input is not None for row in rows]
    return stacked, to_device(has_mask, stacked.device)


def read_output_tokens(decoder: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted IoU, B x K, and one row of weights per mask, B x K x c, from the tokens.

    Args:
        decoder: A mask decoder of segment_anything's shape.
        hidden: B x N x C tokens after the transformer.
    """
    mlps = decoder.output_hypernetworks_mlps
    hyper = torch.stack([mlp(hidden[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)
    return decoder.iou_prediction_head(hidden[:, 0]), hyper
