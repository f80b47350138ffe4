"""Images of growing conversations: processed once, encoded once, alike ones together.

A processor of transformers takes whole conversations, and so every turn all their images again.
Here each is made into patches when it is first shown, slots that show the same one share them, and
a model is given the features of distinct images alone. For Qwen3-VL (see `turn_cache.can_keep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medseg_agents.llm.prompt_tokens import MarkedPrompt, PromptTokens, pad_left
from medseg_agents.llm.turn_cache import without_adapters


@dataclass(frozen=True)
class ProcessedImage:
    """An image as the model takes it.

    Args:
        pixels: Patches x values.
        grid: (3,) int64: frames, rows and columns of patches.
        tokens: Place holders in a prompt.
    """

    pixels: torch.Tensor
    grid: torch.Tensor
    tokens: int


def process_new(processor: Any, conversations: Sequence[Any]) -> None:
    """Process the images that conversations show for the first time.

    Args:
        processor: Of the model.
        conversations: Each with its `dialogue` and `processed`, to which is added.
    """
    new: dict[bytes, Any] = {}
    missing: list[tuple[Any, bytes]] = []
    for one in conversations:
        for image in one.dialogue.all_images()[len(one.processed) :]:
            key = repr(image.size).encode() + image.tobytes()
            new.setdefault(key, image)
            missing.append((one, key))
    if not missing:
        return
    made = processor.image_processor(images=list(new.values()), return_tensors="pt")
    grids = made["image_grid_thw"]
    merged = processor.image_processor.merge_size**2
    counts = grids.prod(-1).tolist()
    processed = {
        key: ProcessedImage(pixels, grid, count // merged)
        for key, pixels, grid, count in zip(
            new, torch.split(made["pixel_values"], counts), grids, counts, strict=True
        )
    }
    for one, key in missing:
        one.processed.append(processed[key])


def tokenize(
    prompt_tokens: PromptTokens,
    prompts: Sequence[MarkedPrompt],
    images: Sequence[Sequence[ProcessedImage]],
) -> dict[str, torch.Tensor]:
    """Tokenize conversations as the processor does, without processing their images again.

    Args:
        prompt_tokens: Of the model's processor.
        prompts: One place holder an image.
        images: Of each prompt, in order.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, B x L, padded at the left;
        `image_grid_thw`, images x 3.
    """
    processor = prompt_tokens.processor
    holder = processor.image_token
    whole = []
    for prompt, shown in zip(prompts, images, strict=True):
        *before, last = prompt.text.split(holder)
        filled = [
            words + holder * image.tokens for words, image in zip(before, shown, strict=False)
        ]
        whole.append("".join(filled) + last)
    read = prompt_tokens.marked.tokenizer(whole, add_special_tokens=False)  # the template has them
    rows = [
        torch.tensor(prompt_tokens.fill(ids, prompt))
        for ids, prompt in zip(read["input_ids"], prompts, strict=True)
    ]
    ids = pad_left(rows, processor.tokenizer.pad_token_id)
    return {
        "input_ids": ids,
        "attention_mask": pad_left([torch.ones_like(row) for row in rows], 0),
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "image_grid_thw": torch.stack([p.grid for shown in images for p in shown]),
    }


def encode_images(model: Any, images: Sequence[ProcessedImage]) -> dict[str, Any]:
    """Compute features of images as `mm_encoder_outputs`, each distinct one computed once.

    Args:
        model: Of the family of Qwen3-VL.
        images: In the order of their place holders.
    """
    places: dict[int, int] = {}
    order = [places.setdefault(id(image), len(places)) for image in images]
    distinct = [images[order.index(place)] for place in range(len(places))]
    return encode_distinct(
        without_adapters(model).model,
        torch.cat([image.pixels for image in distinct]).to(model.device),
        torch.stack([image.grid for image in distinct]).to(model.device),
        order,
    )


def encode_distinct(
    inner: Any, pixels: torch.Tensor, grids: torch.Tensor, order: Sequence[int]
) -> dict[str, Any]:
    """Compute features of distinct images, dealt to the places where they are shown.

    Args:
        inner: The model without its head.
        pixels: Patches of all images, one after another.
        grids: D x 3 int64, of each image.
        order: For each place, which of the D images is shown there.

    Returns:
        `mm_encoder_outputs` and `image_grid_thw`, one row a place.
    """
    features = inner.get_image_features(pixels, grids, return_dict=True)
    features.pooler_output = [features.pooler_output[place] for place in order]
    features.deepstack_features = [
        [level[place] for place in order] for level in features.deepstack_features
    ]
    return {"mm_encoder_outputs": {"image": features}, "image_grid_thw": grids[list(order)]}
