"""Pictures of growing conversations: processed once, encoded once, alike ones together.

A processor of transformers takes whole conversations, and so every turn all their pictures again.
Here each is made into patches when it is first shown, slots that show the same one share them, and
a model is given the features of distinct pictures alone. For Qwen3-VL (see `turn_cache.can_keep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medseg_agents.llm.turn_cache import without_adapters


@dataclass(frozen=True)
class ProcessedPicture:
    """A picture as the model takes it.

    Args:
        pixels: Patches x values.
        grid: (3,) int64: frames, rows and columns of patches.
        tokens: Place holders in a prompt.
    """

    pixels: torch.Tensor
    grid: torch.Tensor
    tokens: int


def process_new(processor: Any, conversations: Sequence[Any]) -> None:
    """Process the pictures that conversations show for the first time.

    Args:
        processor: Of the model.
        conversations: Each with `dialogue.pictures` and `processed`, to which is added.
    """
    new: dict[bytes, Any] = {}
    missing: list[tuple[Any, bytes]] = []
    for one in conversations:
        for picture in one.dialogue.pictures[len(one.processed) :]:
            key = picture.tobytes()
            new.setdefault(key, picture)
            missing.append((one, key))
    if not missing:
        return
    made = processor.image_processor(images=list(new.values()), return_tensors="pt")
    grids = made["image_grid_thw"]
    merged = processor.image_processor.merge_size**2
    counts = grids.prod(-1).tolist()
    found = {
        key: ProcessedPicture(pixels, grid, count // merged)
        for key, pixels, grid, count in zip(
            new, torch.split(made["pixel_values"], counts), grids, counts, strict=True
        )
    }
    for one, key in missing:
        one.processed.append(found[key])


def tokenize(
    processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[ProcessedPicture]]
) -> dict[str, torch.Tensor]:
    """What the processor makes of conversations, but for the pictures themselves.

    Args:
        processor: Of the model.
        texts: From its chat template, one place holder a picture.
        pictures: Of each text, in order.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, B x L, padded at the left;
        `image_grid_thw`, pictures x 3.
    """
    holder = processor.image_token
    whole = []
    for text, shown in zip(texts, pictures, strict=True):
        parts = text.split(holder)
        filled = [
            part + holder * picture.tokens for part, picture in zip(parts, shown, strict=False)
        ]
        whole.append("".join(filled) + parts[-1])
    made = processor.tokenizer(
        whole,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=False,  # the template has them
    )
    return {
        "input_ids": made["input_ids"],
        "attention_mask": made["attention_mask"],
        "mm_token_type_ids": (made["input_ids"] == processor.image_token_id).long(),
        "image_grid_thw": torch.stack([p.grid for shown in pictures for p in shown]),
    }


def encode_pictures(model: Any, pictures: Sequence[ProcessedPicture]) -> dict[str, Any]:
    """Features of pictures as `mm_encoder_outputs`, each distinct one computed once.

    Args:
        model: Of the family of Qwen3-VL.
        pictures: In the order of their place holders.
    """
    places: dict[int, int] = {}
    order = [places.setdefault(id(picture), len(places)) for picture in pictures]
    distinct = [pictures[order.index(place)] for place in range(len(places))]
    return encode_distinct(
        without_adapters(model).model,
        torch.cat([picture.pixels for picture in distinct]).to(model.device),
        torch.stack([picture.grid for picture in distinct]).to(model.device),
        order,
    )


def encode_distinct(
    inner: Any, pixels: torch.Tensor, grids: torch.Tensor, order: Sequence[int]
) -> dict[str, Any]:
    """Features of distinct pictures, dealt to the places where they are shown.

    Args:
        inner: The model without its head.
        pixels: Patches of all pictures, one after another.
        grids: D x 3 int64, of each picture.
        order: For each place, which of the D pictures is shown there.

    Returns:
        `mm_encoder_outputs` and `image_grid_thw`, one row a place.
    """
    features = inner.get_image_features(pixels, grids, return_dict=True)
    features.pooler_output = [features.pooler_output[place] for place in order]
    features.deepstack_features = [
        [level[place] for place in order] for level in features.deepstack_features
    ]
    return {"mm_encoder_outputs": {"image": features}, "image_grid_thw": grids[list(order)]}
