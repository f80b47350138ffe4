"""Rows of tokens as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from agents.rllib.chat.token_rows import Picture, TokenRow


def collate(
    rows: Sequence[TokenRow],
    processor: Any,
    image_token: int,
    share_pictures: bool,
    weights: dict[int, float] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, torch.Tensor]:
    """Pad rows at the right and gather what is learned from them.

    Every distinct picture is there once, however many rows show it.

    Args:
        rows: B of them.
        processor: Of the model, for its pictures.
        image_token: Place holder of a picture's tokens.
        share_pictures: False repeats pictures as they are shown, for models that cannot be given
            features that are computed already.
        weights: By episode, of each said token; None is 1.
        device: Where the tensors go.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, B x L; `pictures`, by what the image
        processor calls its outputs, with `picture_of` (K,), which of them each of the K shown ones
        is; over the N said tokens `before` (N,), the place in B x L that predicts it, `said`,
        `old_log_probs`, `advantages`, `weights`; over the M turns `ends` (M,) and `value_targets`.
    """
    length = max(len(row.tokens) for row in rows)
    ids = np.zeros((len(rows), length), np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    before: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("said", "old_log_probs", "advantages", "weights")
    }
    ends: list[int] = []
    targets: list[float] = []
    for number, row in enumerate(rows):
        ids[number, : len(row.tokens)] = row.tokens
        mask[number, : len(row.tokens)] = 1
        places = np.flatnonzero(row.said)
        before.append(number * length + places - 1)
        columns["said"].append(row.tokens[places])
        columns["old_log_probs"].append(row.log_probs[places])
        columns["advantages"].append(
            row.advantages[places] if len(row.advantages) else np.zeros(len(places), np.float32)
        )
        weight = 1.0 if weights is None else weights[row.episode]
        columns["weights"].append(np.full(len(places), weight, np.float32))
        ends += [number * length + end for end in row.ends.values()]
        targets += [row.values.get(turn, 0.0) for turn in row.ends]
    pictures, picture_of = _pictures([row.pictures for row in rows], share_pictures)
    found = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_token) * mask,
        "picture_of": np.asarray(picture_of, np.int64),
        "before": np.concatenate(before),
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        "ends": np.asarray(ends, np.int64),
        "value_targets": np.asarray(targets, np.float32),
    }
    tensors: dict[str, Any] = {k: torch.from_numpy(v).to(device) for k, v in found.items()}
    shown = processor.image_processor(
        images=[Image.fromarray(picture.pixels) for picture in pictures], return_tensors="pt"
    )
    tensors["pictures"] = {name: value.to(device) for name, value in shown.items()}
    return tensors


def _pictures(shown: Sequence[Sequence[Picture]], share: bool) -> tuple[list[Picture], list[int]]:
    if not share:
        flat = [picture for pictures in shown for picture in pictures]
        return flat, list(range(len(flat)))
    places: dict[bytes, int] = {}
    distinct: list[Picture] = []
    picture_of = []
    for pictures in shown:
        for picture in pictures:
            if picture.key not in places:
                places[picture.key] = len(distinct)
                distinct.append(picture)
            picture_of.append(places[picture.key])
    return distinct, picture_of
