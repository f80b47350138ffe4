"""The prompt encoder and the mask decoder of `pocket`, and the way through them.

What differs from `segment_anything`'s, and why: prompts are also drawn as maps, for a few tokens
alone learn slowly; and before the two-way transformer every cell is compared with the cells that
the prompts point at, then mixed with its neighbours, so that a click can spread over what looks
alike and stop at an edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from medseg_gym.backbones.batching.collate import TokenBatch
from medseg_gym.backbones.batching.fused import bias_of, conv_gelu, linear_add_, pointwise
from medseg_gym.backbones.batching.kept import kept
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
from medseg_gym.backbones.families.pocket.prompt_maps import MAPS, draw_maps
from medseg_gym.backbones.families.sam.modeling import (
    MLP,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from medseg_gym.backbones.families.sam.prompts import PromptEmbedder, read_output_tokens
from medseg_gym.backbones.families.sam.two_way import run_two_way

MASK_LIMIT = 20.0  # logits fed back are clamped to this


Rows: TypeAlias = "torch.Tensor | Sequence[torch.Tensor]"
"""Features of B images: B x C x h x w, or one C x h x w for each."""


def add_rows(x: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Add features to B x h x w x C cells; those of one image each without stacking them first."""
    if isinstance(rows, torch.Tensor):
        return x + rows.permute(0, 2, 3, 1)
    torch._foreach_add_(list(x.unbind()), [row.permute(1, 2, 0) for row in rows])
    return x


def pixel_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`F.linear` of B x h x w x C; as a convolution it does not write the bias down first."""
    made = F.conv2d(x.to(weight.dtype).permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return made.permute(0, 2, 3, 1).contiguous()  # as it is on a CPU; a GPU may choose otherwise


def draw(conv: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """Convolve B x c x h x w maps, in the precision of the weights, to B x h x w x C."""
    maps = maps.to(conv.weight.dtype, memory_format=torch.channels_last)
    made: torch.Tensor = conv(maps).permute(0, 2, 3, 1)
    return made.contiguous()


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
        """B x h x w x C, contiguous, to the same; in inference in the same memory."""
        spread = conv_gelu(self.spread, F.gelu(self._normalised_into(x)).permute(0, 3, 1, 2))
        return linear_add_(self.out, spread.permute(0, 2, 3, 1), x)

    def _normalised_into(self, x: torch.Tensor) -> torch.Tensor:
        """Return `into` of `norm` as one product: whoever scales all cells can scale the weights.

        Mean and deviation are one number each per row, so the normalised cells are never written.
        """
        count = x[0].numel()
        pieces = x.view(len(x), GRID, -1)  # in float32 from here on: one bfloat16 sum is too coarse
        mean = pieces.sum(2).float().sum(1, keepdim=True) / count
        norms = torch.linalg.vector_norm(pieces, dim=2).float()
        squares = (norms**2).sum(1, keepdim=True) / count
        scale = torch.rsqrt((squares - mean**2).clamp(min=0) + self.norm.eps)  # B x 1
        parts = (self.into.weight, bias_of(self.into), self.norm.weight, self.norm.bias)
        weight, bias, sums = kept(self, "folded", parts, self._folded)
        bias = bias - (scale * mean) * sums  # B x C/2
        weight = scale[..., None] * weight
        cells = torch.baddbmm(bias[:, None].to(x.dtype), x.flatten(1, 2), weight.mT.to(x.dtype))
        planes: torch.Tensor = cells.unflatten(1, x.shape[1:3])
        return planes

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return `into` after the norm's own weights, C/2 x C and C/2, and its rows' sums."""
        weight = pointwise(self.into).float()
        bias = bias_of(self.into).float() + weight @ self.norm.bias.float()
        weight = weight * self.norm.weight.float()
        return weight, bias, weight.sum(1)


class PocketPromptEncoder(PromptEncoder):
    """SAM's prompt encoder, and the same prompts drawn as maps."""

    def __init__(self) -> None:
        super().__init__(DIM, (GRID, GRID), (SIDE, SIDE), mask_in_chans=16)

    @staticmethod
    def maps(batch: TokenBatch, side: int) -> torch.Tensor:
        """Draw prompts on one grid, see `draw_maps`: B x (MAPS + 1) x side x side."""
        return draw_maps(batch, (side,))[0]

    def masks(
        self, mask_input: torch.Tensor | None, has_mask: torch.Tensor | None, count: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embed mask inputs up to the last layer, which a caller may join with others.

        Args:
            mask_input: B x 128 x 128 logits; None if no row has any.
            has_mask: B bool, which rows have one; None for all.
            count: B.

        Returns:
            Features B x 1024 x c, and weights DIM x c and biases B x DIM of the last layer.
        """
        last, without = self.mask_downscaling[-1], self.no_mask_embed.weight
        weight, bias = pointwise(last), last.bias.expand(count, -1)
        if mask_input is None:
            empty = weight.new_zeros(count, GRID * GRID, 0)
            return empty, weight[:, :0], without.expand(count, -1)
        features = mask_input.clamp(-MASK_LIMIT, MASK_LIMIT)[:, None]
        features = self.mask_downscaling[:-1](features).flatten(2).mT
        if has_mask is not None:
            features = features * has_mask[:, None, None]
            bias = torch.where(has_mask[:, None], bias, without)
        return features, weight, bias


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
        image: Rows,
        directions: Rows,
        mask_input: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        maps: torch.Tensor,
    ) -> torch.Tensor:
        """Join image and prompts before the transformer.

        Args:
            image: B x DIM x 32 x 32 embeddings.
            directions: B x GROUPS·DIRECTION x 32 x 32.
            mask_input: B x 1024 x c features of the mask inputs, and weights DIM x c and biases
                B x DIM that embed them.
            maps: B x (MAPS + 1) x 32 x 32, the last of them the probability of the mask input.

        Returns:
            B x 32 x 32 x DIM.
        """
        # Slices: a list would be copied to the device, and waited for.
        where = torch.cat([maps[:, 0:5:2], maps[:, MAPS:]], dim=1).flatten(2)  # B 4 P
        where = (where / (where.sum(2, keepdim=True) + 1e-3)).to(self.draw.weight.dtype)
        if not isinstance(directions, torch.Tensor):
            directions = torch.stack(list(directions))
        directions = directions.flatten(2)
        pointed = (where @ directions.mT).unflatten(2, (GROUPS, -1)).transpose(1, 2)  # B G 4 c
        alike = (pointed @ directions.unflatten(1, (GROUPS, -1))).flatten(1, 2)  # B G·4 P
        earlier, into, bias = mask_input
        dtype = self.draw.weight.dtype
        weight = torch.cat([pointwise(self.alike), into.to(dtype)], dim=1)  # DIM x (16 + c)
        beside = torch.cat([alike.mT.to(dtype), earlier.to(dtype)], dim=2)  # B P (16 + c)
        x = add_rows(draw(self.draw, maps), image).contiguous()
        cells = torch.baddbmm(x.flatten(1, 2), beside, weight.T.expand(len(x), -1, -1))
        cells = cells + (bias + bias_of(self.alike)).to(dtype)[:, None]
        mixed: torch.Tensor = self.mix(cells.view(x.shape))
        return mixed

    def upscale(
        self, cells: torch.Tensor, fine4: Rows, fine2: Rows, maps: torch.Tensor
    ) -> torch.Tensor:
        """Draw the features that masks are read from.

        Args:
            cells: B x 32·32 x DIM from the transformer.
            fine4: B x FINE[0] x 64 x 64 skips.
            fine2: B x 4·FINE[1] x 64 x 64 skips: 128 x 128 ones, each 2 x 2 cells stacked.
            maps: B x (MAPS + 1) x 64 x 64, as in `fuse`.

        Returns:
            B x 64 x 64 x 4·FINE[1], stacked like `fine2`.
        """
        x = add_rows(draw(self.draw_fine, maps), fine4)
        up = self.output_upscaling
        weight, bias = kept(self, "cells", (up.weight, up.bias), self._cells_first)
        coarse = pixel_linear(cells.unflatten(1, (GRID, GRID)), weight, bias)
        coarse = coarse.reshape(-1, GRID, GRID, 2, 2, FINE[0]).transpose(2, 3)
        x = x.reshape(-1, GRID, 2, GRID, 2, FINE[0]) + coarse
        mixed = F.gelu(self.mix_fine(x.view(-1, 2 * GRID, 2 * GRID, FINE[0])))
        last = self.upscaling_fine
        fine = pixel_linear(mixed, pointwise(last), bias_of(last))
        return F.relu_(add_rows(fine, fine2))

    def _cells_first(self) -> list[torch.Tensor]:
        """Return `output_upscaling` with the four cells of each before their channels."""
        up = self.output_upscaling
        parts = (t.unflatten(0, (-1, 4)).transpose(0, 1) for t in (up.weight, up.bias))
        return [part.flatten(0, 1) for part in parts]

    @staticmethod
    def masks(hyper: torch.Tensor, upscaled: torch.Tensor) -> torch.Tensor:
        """Read masks from features.

        Args:
            hyper: B x K x FINE[1], one row of weights per mask.
            upscaled: B x 64 x 64 x 4·FINE[1] from `upscale`.

        Returns:
            B x K x 128 x 128 logits.
        """
        # Weights for all four cells at once, most of them 0: cheaper than moving the features.
        spread = torch.einsum("bkc,ij->bcikj", hyper, torch.eye(4, device=hyper.device))
        weights = spread.flatten(3).flatten(1, 2).to(upscaled.dtype)  # B 4·FINE[1] 4·K
        # Few rows times many columns: the other way round takes nearly twice as long in float32.
        read = (weights.mT @ upscaled.flatten(1, 2).mT).unflatten(2, (2 * GRID, 2 * GRID))
        read = read.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        logits: torch.Tensor = read.flatten(4).flatten(2, 3)
        return logits


class Decoded(NamedTuple):
    """Features that masks are read from.

    Attributes:
        scores: B x K predicted IoU.
        hyper: B x K x FINE[1], one row of weights per mask.
        upscaled: B x 64 x 64 x 4·FINE[1] features.
    """

    scores: torch.Tensor
    hyper: torch.Tensor
    upscaled: torch.Tensor


def decode(
    model: Sam,
    features: Sequence[Rows],
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
    decoder, prompts = model.mask_decoder, PromptEmbedder(model.prompt_encoder)
    maps, fine_maps = draw_maps(batch, (GRID, 2 * GRID))
    if mask_input is not None:
        earlier = F.avg_pool2d(mask_input[:, None].sigmoid(), 2)
        if has_mask is not None:
            earlier = earlier * has_mask[:, None, None, None]
        fine_maps[:, MAPS:] = earlier
        maps[:, MAPS:] = F.avg_pool2d(earlier, 2)
    dense = model.prompt_encoder.masks(mask_input, has_mask, len(maps))
    fused = decoder.fuse(image, directions, dense, maps)
    tokens, token_mask = prompts.with_outputs(decoder, batch)
    encoder = model.prompt_encoder
    where = (encoder.pe_layer.positional_encoding_gaussian_matrix,)
    pe = kept(encoder, f"pe {fused.dtype}", where, lambda: encoder.get_dense_pe().to(fused.dtype))
    hidden, cells = run_two_way(
        decoder.transformer, fused.permute(0, 3, 1, 2), pe, tokens, token_mask
    )
    upscaled = decoder.upscale(cells, fine4, fine2, fine_maps)
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


def image_side(model: Sam) -> Iterator[nn.Module]:
    """Modules that work on whole images, where nearly all time goes; not those on a few tokens."""
    decoder = model.mask_decoder
    yield model.image_encoder
    yield from (decoder.draw, decoder.alike, decoder.mix, decoder.output_upscaling)
    yield from (decoder.draw_fine, decoder.mix_fine, decoder.upscaling_fine)
    yield from (layer.norm4 for layer in decoder.transformer.layers)
