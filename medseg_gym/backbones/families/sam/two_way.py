"""SAM's two-way transformer over a batch of images, with padded prompt tokens masked out.

The stock module attends to whatever tokens it is given, so padding a short prompt list changes its
mask (2 % of pixels with SAM's own padding label). Here padded tokens are left out as keys, which
makes them inert: a row's result does not depend on how long its neighbours are. The weights and
sub-modules are the model's own; `segment_anything`, LiteMedSAM and `sam2` name them alike.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def _attend(
    attention: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_mask: torch.Tensor | None,
) -> torch.Tensor:
    heads = attention.num_heads

    def split(x: torch.Tensor) -> torch.Tensor:  # B x N x C -> B x heads x N x C/heads
        parts: torch.Tensor = x.unflatten(2, (heads, -1)).transpose(1, 2)
        return parts

    out = F.scaled_dot_product_attention(
        split(attention.q_proj(q)),
        split(attention.k_proj(k)),
        split(attention.v_proj(v)),
        attn_mask=None if key_mask is None else key_mask[:, None, None, :],
    )
    projected: torch.Tensor = attention.out_proj(out.transpose(1, 2).flatten(2))
    return projected


def _attend_to_image(
    attention: Any, q: torch.Tensor, pixels: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attend from few tokens, B x N x C, to many pixels, B x P x C, with values B x P x C.

    As in `_attend_from_image`, the projections of the pixels are applied to the tokens: before the
    scores, and after the weighted sum. The key bias adds the same to all scores of a token, which
    a softmax does not see; the value bias comes through whole, for shares sum to one.
    """
    heads = attention.num_heads
    queries = attention.q_proj(q).unflatten(2, (heads, -1)).transpose(1, 2)  # B x heads x N x D
    queries = queries * queries.shape[-1] ** -0.5
    into = attention.k_proj.weight.unflatten(0, (heads, -1))  # heads x D x C
    scores = (queries @ into).flatten(1, 2).to(pixels.dtype) @ pixels.mT  # B x heads·N x P
    sums = (scores.softmax(dim=2) @ values).unflatten(1, (heads, -1))  # B x heads x N x C
    out = (
        sums.to(q.dtype) @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT
    )  # B x heads x N x D
    projected: torch.Tensor = attention.out_proj(
        out.transpose(1, 2).flatten(2) + attention.v_proj.bias
    )
    return projected


def _attend_from_image(
    attention: Any,
    pixels: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Attend from many pixels, B x P x C, to few tokens, B x N x C.

    The projections of the pixels, in and out, are applied to the tokens instead: the same sums in
    another order, without the two largest products and with a softmax over whole image rows. A
    head's shares of a pixel sum to one, so each head can carry its part of the bias.
    """
    heads = attention.num_heads
    keys, values = (  # B x heads x N x D
        x.unflatten(2, (heads, -1)).transpose(1, 2)
        for x in (attention.k_proj(k), attention.v_proj(v))
    )
    keys = keys * keys.shape[-1] ** -0.5
    query, out = attention.q_proj, attention.out_proj
    weight = query.weight.unflatten(0, (heads, -1))  # heads x D x C
    bias = query.bias.unflatten(0, (heads, -1, 1))  # heads x D x 1
    scores = torch.baddbmm(
        (keys @ bias).flatten(1, 2).to(pixels.dtype),
        (keys @ weight).flatten(1, 2).to(pixels.dtype),
        pixels.mT,
    ).unflatten(1, (heads, -1))  # B x heads x N x P
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, :, None], -torch.inf)
    shares = scores.softmax(dim=2).flatten(1, 2)  # B x heads·N x P
    values = values @ out.weight.T.unflatten(0, (heads, -1)) + out.bias / heads
    attended: torch.Tensor = shares.mT @ values.flatten(1, 2).to(shares.dtype)
    return attended


def run_two_way(
    transformer: Any,
    image: torch.Tensor,
    image_pe: torch.Tensor,
    tokens: torch.Tensor,
    token_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a TwoWayTransformer.

    Args:
        transformer: A `TwoWayTransformer` of segment_anything's shape.
        image: B x C x h x w, one image embedding per row.
        image_pe: 1 x C x h x w positional encoding.
        tokens: B x N x C prompt and output tokens.
        token_mask: B x N bool, False for padding; None if nothing is padded.

    Returns:
        Tokens, B x N x C, and image, B x (h·w) x C.
    """
    keys = image.flatten(2).transpose(1, 2)
    key_pe = image_pe.flatten(2).transpose(1, 2)
    queries = tokens
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = _attend(layer.self_attn, queries, queries, queries, token_mask)
        else:
            q = queries + tokens
            queries = queries + _attend(layer.self_attn, q, q, queries, token_mask)
        queries = layer.norm1(queries)
        k = keys + key_pe
        queries = queries + _attend_to_image(
            layer.cross_attn_token_to_image, queries + tokens, k, keys
        )
        queries = layer.norm2(queries)
        queries = layer.norm3(queries + layer.mlp(queries))
        keys = keys + _attend_from_image(
            layer.cross_attn_image_to_token, k, queries + tokens, queries, token_mask
        )
        keys = layer.norm4(keys)
    final = transformer.final_attn_token_to_image
    queries = queries + _attend_to_image(final, queries + tokens, keys + key_pe, keys)
    return transformer.norm_final_attn(queries), keys
