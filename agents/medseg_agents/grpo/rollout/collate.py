"""Rows of tokens as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.rollout.processed_rows import pad, process_images
from medseg_agents.grpo.rollout.token_rows import TokenRow
from medseg_agents.grpo.shared_prompts import SharedPrompts


def collate(
    rows: Sequence[TokenRow],
    processor: Any,
    image_token: int,
    share_images: bool,
    weights: dict[int, float] | None = None,
    device: torch.device | str = "cpu",
    prompts: SharedPrompts | None = None,
) -> dict[str, Any]:
    """Pad rows at the right, and gather the completions that are learned from.

    Every distinct image is there once, however many rows show it.

    Args:
        rows: B of them.
        processor: Of the model, for its images.
        image_token: Place holder of an image's tokens.
        share_images: False repeats images as they are shown, for models that cannot be given
            features that are computed already.
        weights: By episode, of each completion token; None is 1.
        device: Where the tensors go.
        prompts: First prompts that rows share: K columns at the left, whose keys and values are
            given, and whose images are not among those of the rows.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, B x (K + L); `images`, by what the
        image processor calls its outputs, with `image_index`, which of them each of the shown ones
        is; over the N completion tokens `logit_index` (N,), the place in B x L that predicts it,
        `completion_ids`, `sampler_log_probs`, `advantages`, `weights`, `row_index` and
        `turn_index`, numbers of the token's row and turn among those here, and `old_log_probs`
        where all rows have them; over the M turns `prompt_ends` (M,), in B x L, and
        `value_targets`. With shared prompts `prefix_length`, K; `prompt_index` (B,), whose keys and
        values a row takes (those of one without are masked); and `grids`, of all shown images, of
        those in prompts too.
    """
    prefix = prompts.width if prompts else 0
    shared = [prompts.number(row) if prompts else None for row in rows]
    cuts = [prompts.lengths[n] if prompts and n is not None else 0 for n in shared]
    ids, mask = pad([row.tokens[cut:] for row, cut in zip(rows, cuts, strict=True)])
    length = ids.shape[1]
    logit_index: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {
        name: []
        for name in (
            *("completion_ids", "sampler_log_probs", "advantages", "weights"),
            *("row_index", "turn_index"),
        )
    }
    if all(row.old_log_probs is not None for row in rows):
        columns["old_log_probs"] = []
    ends: list[int] = []
    targets: list[float] = []
    for number, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        places = np.flatnonzero(row.completion_mask)
        start = number * length - cut
        logit_index.append(start + places - 1)
        columns["completion_ids"].append(row.tokens[places])
        columns["sampler_log_probs"].append(row.log_probs[places])
        if "old_log_probs" in columns and row.old_log_probs is not None:
            columns["old_log_probs"].append(row.old_log_probs[places])
        columns["row_index"].append(np.full(len(places), number))
        # Turns are numbered on from those of the rows before.
        first = min(row.prompt_ends, default=0)
        columns["turn_index"].append(len(ends) + row.turns[places] - first)
        columns["advantages"].append(
            row.advantages[places] if len(row.advantages) else np.zeros(len(places), np.float32)
        )
        weight = 1.0 if weights is None else weights[row.episode]
        columns["weights"].append(np.full(len(places), weight, np.float32))
        ends += [start + end for end in row.prompt_ends.values()]
        targets += [row.values.get(turn, 0.0) for turn in row.prompt_ends]
    if prefix:
        ids, mask = (np.pad(side, ((0, 0), (prefix, 0))) for side in (ids, mask))
        for number, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
            ids[number, :cut] = row.tokens[:cut]
            mask[number, :cut] = 1
    shown = process_images(
        [
            row.images[row.num_prompt_images if cut else 0 :]
            for row, cut in zip(rows, cuts, strict=True)
        ],
        share_images,
        processor,
        device,
    )
    arrays = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_token) * mask,
        "logit_index": np.concatenate(logit_index),
        **{name: np.concatenate(values) for name, values in columns.items()},
        "prompt_ends": np.asarray(ends, np.int64),
        "value_targets": np.asarray(targets, np.float32),
    }
    tensors: dict[str, Any] = {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}
    tensors |= shown.tensors
    if prompts and prefix:
        grids = [
            grid
            for n, own in zip(shared, shown.grids, strict=True)
            for grid in ([own] if n is None else [prompts.grids[n], own])
        ]
        tensors["prefix_length"] = prefix
        tensors["prompt_index"] = torch.tensor([n or 0 for n in shared], device=device)
        tensors["grids"] = torch.cat(grids).to(device)
    return tensors
