"""Rows of tokens as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.rollout.processed_rows import pad, process_pictures
from medseg_agents.grpo.rollout.token_rows import TokenRow
from medseg_agents.grpo.shared_prompts import SharedPrompts


def collate(
    rows: Sequence[TokenRow],
    processor: Any,
    image_token: int,
    share_pictures: bool,
    weights: dict[int, float] | None = None,
    device: torch.device | str = "cpu",
    prompts: SharedPrompts | None = None,
) -> dict[str, Any]:
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
        prompts: First prompts that rows share: K columns at the left, whose keys and values are
            given, and whose pictures are not among those of the rows.

    Returns:
        `input_ids`, `attention_mask` and `mm_token_type_ids`, B x (K + L); `pictures`, by what the
        image processor calls its outputs, with `picture_of`, which of them each of the shown ones
        is; over the N said tokens `before` (N,), the place in B x L that predicts it, `said`,
        `old_log_probs`, `advantages`, `weights`; over the M turns `ends` (M,), in B x L, and
        `value_targets`. With shared prompts `known`, K; `prompt_of` (B,), whose keys and values a
        row takes (those of one without are masked); and `grids`, of all shown pictures, of those in
        prompts too.
    """
    known = prompts.width if prompts else 0
    shared = [prompts.number(row) if prompts else None for row in rows]
    cuts = [prompts.lengths[n] if prompts and n is not None else 0 for n in shared]
    ids, mask = pad([row.tokens[cut:] for row, cut in zip(rows, cuts, strict=True)])
    length = ids.shape[1]
    before: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("said", "old_log_probs", "advantages", "weights")
    }
    ends: list[int] = []
    targets: list[float] = []
    for number, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
        places = np.flatnonzero(row.said)
        start = number * length - cut
        before.append(start + places - 1)
        columns["said"].append(row.tokens[places])
        columns["old_log_probs"].append(row.log_probs[places])
        columns["advantages"].append(
            row.advantages[places] if len(row.advantages) else np.zeros(len(places), np.float32)
        )
        weight = 1.0 if weights is None else weights[row.episode]
        columns["weights"].append(np.full(len(places), weight, np.float32))
        ends += [start + end for end in row.ends.values()]
        targets += [row.values.get(turn, 0.0) for turn in row.ends]
    if known:
        ids, mask = (np.pad(side, ((0, 0), (known, 0))) for side in (ids, mask))
        for number, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
            ids[number, :cut] = row.tokens[:cut]
            mask[number, :cut] = 1
    shown = process_pictures(
        [
            row.pictures[row.first_pictures if cut else 0 :]
            for row, cut in zip(rows, cuts, strict=True)
        ],
        share_pictures,
        processor,
        device,
    )
    found = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_token) * mask,
        "before": np.concatenate(before),
        **{name: np.concatenate(parts) for name, parts in columns.items()},
        "ends": np.asarray(ends, np.int64),
        "value_targets": np.asarray(targets, np.float32),
    }
    tensors: dict[str, Any] = {k: torch.from_numpy(v).to(device) for k, v in found.items()}
    tensors |= shown.tensors
    if prompts and known:
        grids = [
            grid
            for n, own in zip(shared, shown.grids, strict=True)
            for grid in ([own] if n is None else [prompts.grids[n], own])
        ]
        tensors["known"] = known
        tensors["prompt_of"] = torch.tensor([n or 0 for n in shared], device=device)
        tensors["grids"] = torch.cat(grids).to(device)
    return tensors
