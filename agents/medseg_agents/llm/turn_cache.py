"""Keys and values kept from one turn of a conversation to the next.

Exact where a conversation only grows: what is fed again begins with what was fed before. Whatever
differs (a completion that tokenizes otherwise than it was generated, say) is computed anew, so that
a kept cache changes no token, only the time, up to the last bits of floating point.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class SlotCache:
    """Keys and values of what a model has read in one conversation.

    Args:
        tokens: Their numbers, in order, without padding.
        layers: Keys and values of each layer, each heads x tokens x width.
    """

    tokens: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]


_FAMILIES = ("qwen3_vl", "qwen3_vl_moe")


def can_keep(model: Any) -> bool:
    """Return whether this is done for a model: Qwen3-VL, whose positions can be given from outside.

    Models with other positions, sliding windows or a recurrent state read everything anew.
    """
    return getattr(model.config, "model_type", None) in _FAMILIES


def without_adapters(model: Any) -> Any:
    """Return the model of transformers, inside adapters of peft if there are any."""
    while hasattr(model, "get_base_model"):  # adapters on adapters, too
        model = model.get_base_model()
    return model


def cache_argument(model: Any) -> str:
    """Return the name of the model's cache argument; transformers renamed it."""
    names = inspect.signature(without_adapters(model).forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def known_part(
    caches: Sequence[SlotCache | None], ids: torch.Tensor, mask: torch.Tensor, image_token: int
) -> int:
    """Count the columns of a left-padded batch that need not be computed.

    Args:
        caches: Of each row; None for a new conversation.
        ids: B x L tokens.
        mask: B x L, 0 where padded.
        image_token: Place holder of an image's tokens.

    Returns:
        Columns at the left that every row knows; 0 where there is a row that knows nothing, or
        where the cut would go through an image.
    """
    length = ids.shape[1]
    unknown = 1
    for cache, row, used in zip(caches, ids.tolist(), mask.sum(1).tolist(), strict=True):
        if cache is None:
            return 0
        row = row[length - used :]
        same = 0
        for ours, theirs in zip(cache.tokens, row, strict=False):
            if ours != theirs:
                break
            same += 1
        unknown = max(unknown, used - same)
    known = length - unknown
    if known <= 0 or bool((mask[:, :known].sum(1) == 0).any()):
        return 0
    cut = (ids[:, known - 1] == image_token) & (ids[:, known] == image_token)
    return 0 if bool(cut.any()) else known


def join(caches: Sequence[SlotCache], mask: torch.Tensor, known: int) -> Any:
    """Join caches into a batch's of `known` columns, padded at the left as the batch is."""
    from transformers import DynamicCache

    used = mask[:, :known].sum(1).tolist()
    whole = DynamicCache()
    for layer in range(len(caches[0].layers)):
        sides = []
        for side in (0, 1):
            first = caches[0].layers[layer][side]
            batch = first.new_zeros(len(caches), first.shape[0], known, first.shape[2])
            for row, (cache, count) in enumerate(zip(caches, used, strict=True)):
                batch[row, :, known - count :] = cache.layers[layer][side][:, :count]
            sides.append(batch)
        whole.update(sides[0], sides[1], layer)
    return whole


def split(cache: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[SlotCache]:
    """Split a batch's cache into one for each row.

    Args:
        cache: After generation.
        ids: B x L tokens, generated ones included.
        mask: B x L, 0 where padded at the left.
    """
    length = cache.get_seq_length()
    caches = []
    for row in range(ids.shape[0]):
        start = int((mask[row] == 0).sum())
        caches.append(
            SlotCache(
                ids[row, start:length].tolist(),
                [
                    (
                        layer.keys[row, :, start:length].clone(),
                        layer.values[row, :, start:length].clone(),
                    )
                    for layer in cache.layers
                ],
            )
        )
    return caches


def positions(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the positions of all tokens of a batch, 4 x B x L: text, time, row and column."""
    rope, _ = without_adapters(model).model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    text = (inputs["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
    return torch.cat([text[None], rope], dim=0)
