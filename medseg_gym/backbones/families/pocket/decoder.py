"""The prompt encoder and the mask decoder of `pocket`, and the way through them.

What differs from `segment_anything`'s, and why: prompts are also drawn as maps, for a few tokens
alone learn slowly; and before the two-way transformer every cell is compared with the cells that
the prompts point at, then mixed with its neighbours, so that a click can spread over what looks
alike and stop at an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from medseg_gym.backbones.batching.collate import (
    BOTTOM_RIGHT,
    NEGATIVE,
    POSITIVE,
    TOP_LEFT,
    TokenBatch,
)
from medseg_gym.backbones.families.pocket.encoder import (
    DIM,
    FINE,
    GRID,
    GROUPS,
    PIXEL_MEAN,
    PIXEL_STD,
    SIDE,
    PocketEncoder,
    whole_norm,
)
from medseg_gym.backbones.families.sam.prompts import PromptEmbedder, read_output_tokens
from medseg_gym.backbones.families.sam.two_way import run_two_way

MASK_LIMIT = 20.0  # logits fed back are clamped to this
MAPS = 10  # see `PocketPromptEncoder.maps`


class Mix(nn.Module):
    """A spread 3 x 3 convolution between two pointwise ones, beside the identity.

    Dense and narrow rather than depthwise and wide: on a CPU the backward pass of a depthwise
    convolution takes several times as long.
    """

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.norm = whole_norm(channels)
        self.into = nn.Conv2d(channels, half, 1)
        self.spread = nn.Conv2d(half, half, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv2d(half, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x h x w to the same."""
        out: torch.Tensor = x + self.out(F.gelu(self.spread(F.gelu(self.into(self.norm(x))))))
        return out


class PocketPromptEncoder(PromptEncoder):
    """SAM's prompt encoder, and the same prompts drawn as maps."""

    def __init__(self) -> None:
        super().__init__(DIM, (GRID, GRID), (SIDE, SIDE), mask_in_chans=16)

    @staticmethod
    def maps(batch: TokenBatch, side: int) -> torch.Tensor:
        """Draw prompts on a grid: B x MAPS x side x side.

        Channels: narrow and wide bumps at positive clicks, the same at negative ones, inside of the
        box with soft borders, position between its sides along x and along y (-1.5..1.5), whether
        there is a box, whether there is a click, and how near the nearest side is.
        """
        place = batch.coords + 0.5  # collate leaves the half to whoever reads it
        cells = (torch.arange(side, device=place.device, dtype=place.dtype) + 0.5) * (SIDE / side)
        maps = []
        for kind in (POSITIVE, NEGATIVE):
            here = (batch.labels == kind)[:, :, None]
            for width in (5.0, 22.0):  # pixels
                bumps = torch.exp(-0.5 * ((cells - place[..., None]) / width) ** 2)  # B N 2 side
                x, y = bumps[:, :, 0], bumps[:, :, 1] * here
                maps.append((y[..., :, None] * x[..., None, :]).amax(dim=1))
        first = (batch.labels == TOP_LEFT)[..., None]
        last = (batch.labels == BOTTOM_RIGHT)[..., None]
        low, high = (place * first).sum(1), (place * last).sum(1)  # B x 2; 0 without a box
        boxed = first.any(1)[..., None].to(place.dtype)  # B x 1 x 1
        half = ((high - low) / 2).clamp(min=1.0)[..., None]
        offset = (cells - ((low + high) / 2)[..., None]) / half  # B x 2 x side
        edge = (1 - offset.abs()) * half  # pixels to the nearer side, negative outside
        inside = torch.sigmoid(edge * 0.5)
        near = torch.exp(-((edge / 8.0) ** 2))
        shape = (len(place), side, side)
        offset = offset.clamp(-1.5, 1.5)
        maps.append(inside[:, 1, :, None] * inside[:, 0, None, :] * boxed)
        maps.append((offset[:, 0, None, :] * boxed).expand(shape))
        maps.append((offset[:, 1, :, None] * boxed).expand(shape))
        maps.append(boxed.expand(shape))
        clicked = ((batch.labels == POSITIVE) | (batch.labels == NEGATIVE)).any(1)
        maps.append(clicked[:, None, None].to(place.dtype).expand(shape))
        maps.append(torch.maximum(near[:, 1, :, None], near[:, 0, None, :]) * maps[4])
        return torch.stack(maps, dim=1)


class PocketMaskDecoder(MaskDecoder):
    """SAM's mask decoder with prompt maps before it and skips behind it."""

    def __init__(self) -> None:
        transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=2 * DIM)
        super().__init__(
            transformer_dim=DIM,
            transformer=transformer,
            iou_head_depth=3,
            iou_head_hidden_dim=DIM,
        )
        self.draw = nn.Conv2d(MAPS + 1, DIM, 3, padding=1)
        self.alike = nn.Conv2d(4 * GROUPS, DIM, 1)
        self.mix = nn.Sequential(*(Mix(DIM, dilation) for dilation in (1, 2, 4, 1)))
        # A linear map and a shuffle are a transposed convolution of stride 2, only faster.
        self.output_upscaling = nn.Linear(DIM, 4 * FINE[0])
        self.draw_fine = nn.Conv2d(MAPS + 1, FINE[0], 3, padding=1)
        self.mix_fine = Mix(FINE[0])
        self.upscaling_fine = nn.Conv2d(FINE[0], 4 * FINE[1], 1)
        self.output_hypernetworks_mlps = nn.ModuleList(
            [MLP(DIM, DIM, FINE[1], 3) for _ in range(self.num_mask_tokens)]
        )

    def fuse(
        self,
        image: torch.Tensor,
        directions: torch.Tensor,
        dense: torch.Tensor,
        maps: torch.Tensor,
        earlier: torch.Tensor,
    ) -> torch.Tensor:
        """Join image and prompts before the transformer.

        Args:
            image: B x DIM x 32 x 32 embeddings.
            directions: B x GROUPS·DIRECTION x 32 x 32.
            dense: Embedded mask inputs, broadcastable to `image`.
            maps: B x MAPS x 32 x 32.
            earlier: B x 1 x 32 x 32 probability of the mask input, 0 without one.

        Returns:
            B x DIM x 32 x 32.
        """
        drawn = torch.cat([maps, earlier], dim=1)
        where = torch.cat([maps[:, [0, 2, 4]], earlier], dim=1).flatten(2)  # B 4 P
        where = where / (where.sum(2, keepdim=True) + 1e-3)
        directions = directions.flatten(2)
        pointed = (directions @ where.mT).unflatten(1, (GROUPS, -1))  # B G c 4
        alike = pointed.mT @ directions.unflatten(1, (GROUPS, -1))  # B G 4 P
        alike = alike.flatten(1, 2).unflatten(2, image.shape[2:])
        mixed: torch.Tensor = self.mix(image + dense + self.draw(drawn) + self.alike(alike))
        return mixed

    def upscale(
        self,
        tokens: torch.Tensor,
        fine4: torch.Tensor,
        fine2: torch.Tensor,
        maps: torch.Tensor,
        earlier: torch.Tensor,
    ) -> torch.Tensor:
        """Draw the features that masks are read from.

        Args:
            tokens: B x 32·32 x DIM from the transformer.
            fine4: B x FINE[0] x 64 x 64 skips.
            fine2: B x 4·FINE[1] x 64 x 64 skips: 128 x 128 ones, each 2 x 2 cells stacked.
            maps: B x MAPS x 64 x 64.
            earlier: B x 1 x 64 x 64, as in `fuse`.

        Returns:
            B x 4·FINE[1] x 64 x 64, stacked like `fine2`.
        """
        coarse = self.output_upscaling(tokens).mT.unflatten(2, (GRID, GRID))
        x = self.draw_fine(torch.cat([maps, earlier], dim=1))
        x += fine4  # in place: at this size the time goes into memory
        x += F.pixel_shuffle(coarse, 2)
        x = self.upscaling_fine(F.gelu(self.mix_fine(x)))
        x += fine2
        return F.relu_(x)

    @staticmethod
    def masks(hyper: torch.Tensor, upscaled: torch.Tensor) -> torch.Tensor:
        """Read masks from features.

        Args:
            hyper: B x K x FINE[1], one row of weights per mask.
            upscaled: B x 4·FINE[1] x 64 x 64 from `upscale`.

        Returns:
            B x K x 128 x 128 logits.
        """
        stacked = hyper @ upscaled.unflatten(1, (-1, 4)).flatten(2)  # B K 4·P
        return F.pixel_shuffle(stacked.unflatten(2, (4, *upscaled.shape[2:])).flatten(1, 2), 2)


class Decoded(NamedTuple):
    """Features that masks are read from.

    Attributes:
        scores: B x K predicted IoU.
        hyper: B x K x FINE[1], one row of weights per mask.
        upscaled: B x 4·FINE[1] x 64 x 64 features.
    """

    scores: torch.Tensor
    hyper: torch.Tensor
    upscaled: torch.Tensor


def decode(
    model: Sam,
    features: Sequence[torch.Tensor],
    batch: TokenBatch,
    mask_input: torch.Tensor | None = None,
    has_mask: torch.Tensor | None = None,
) -> Decoded:
    """Everything up to the masks; the same in training and in use.

    Args:
        model: From `build_model`.
        features: What the encoder gives, one row per prompt row.
        batch: Prompts of B rows.
        mask_input: B x 128 x 128 logits of an earlier decode; None if no row has one.
        has_mask: B bool, which rows have one; None for all.
    """
    image, directions, fine4, fine2 = features
    decoder, prompts = model.mask_decoder, PromptEmbedder(model.prompt_encoder, MASK_LIMIT)
    if mask_input is None:
        earlier = image.new_zeros(len(image), 1, 2 * GRID, 2 * GRID)
    else:
        earlier = F.avg_pool2d(mask_input[:, None].sigmoid(), 2)
        if has_mask is not None:
            earlier = earlier * has_mask[:, None, None, None]
    fused = decoder.fuse(
        image,
        directions,
        prompts.embed_masks(mask_input, has_mask),
        PocketPromptEncoder.maps(batch, GRID),
        F.avg_pool2d(earlier, 2),
    )
    tokens, token_mask = prompts.with_outputs(decoder, batch)
    pe = model.prompt_encoder.get_dense_pe()
    hidden, cells = run_two_way(decoder.transformer, fused, pe, tokens, token_mask)
    upscaled = decoder.upscale(
        cells, fine4, fine2, PocketPromptEncoder.maps(batch, 2 * GRID), earlier
    )
    return Decoded(*read_output_tokens(decoder, hidden), upscaled)


def build_model() -> Sam:
    """A `pocket` with fresh weights."""
    return Sam(
        PocketEncoder(),
        PocketPromptEncoder(),
        PocketMaskDecoder(),
        pixel_mean=[PIXEL_MEAN] * 3,
        pixel_std=[PIXEL_STD] * 3,
    )
