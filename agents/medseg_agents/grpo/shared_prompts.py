"""First prompts that several rows have in common: read once a gradient step, and learned through.

The episodes of a group begin alike: system message, task, first image. Their rows need keys and
values of that part and nothing else of it, so it is computed once for all of them. A gradient step
over several micro-batches reads it twice: at first without gradients, for keys and values that
collect what they would change about them, then with the last batch, whose backward pass
carries on what was collected. The gradients are those of rows computed whole, up to rounding.
As many prompts are read at once as rows are (`prompt_slices`), so that memory is bounded by the
size of a micro-batch, however many groups a step has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.forward.prompt_cache import Layers
from medseg_agents.grpo.rollout.processed_rows import pad, process_images
from medseg_agents.grpo.rollout.token_rows import TokenRow


class SharedPrompts:
    """Prompts that some rows of a gradient step share; none where no two rows begin alike.

    The last token of a prompt is left to each row: its first completion token is predicted there.

    Args:
        rows: Of the step, or of a slice of it.
        processor: Of the model.
        image_token: Place holder of an image's tokens.
        device: Where tensors go.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        processor: Any,
        image_token: int,
        device: torch.device | str = "cpu",
    ) -> None:
        groups, _ = _alike(rows)
        self._numbers = {id(row): n for n, group in enumerate(groups) for row in group}
        self.lengths = [_length(group[0]) for group in groups]
        self.leaves: Layers = []
        self._collected: list[tuple[torch.Tensor | None, torch.Tensor | None]] = []
        if not groups:
            return
        first = [group[0] for group in groups]
        ids, mask = pad([row.tokens[: _length(row)] for row in first])
        shown = process_images(
            [row.images[: row.num_prompt_images] for row in first], True, processor, device
        )
        self.grids = shown.grids
        self.tensors: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids).to(device),
            "attention_mask": torch.from_numpy(mask).to(device),
            "mm_token_type_ids": torch.from_numpy((ids == image_token) * mask).to(device),
            **shown.tensors,
        }

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Tokens of the longest prompt."""
        return max(self.lengths, default=0)

    def number(self, row: TokenRow) -> int | None:
        """Return the number of the prompt that a row begins with; None if it shares none."""
        return self._numbers.get(id(row))

    def collect(self, layers: Layers) -> None:
        """Take keys and values, computed without gradients, for micro-batches to compute with.

        Args:
            layers: Of the model.
        """
        self.leaves = [
            (k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in layers
        ]

    def last_pass(self) -> dict[str, Any]:
        """Return the model's inputs for the pass with gradients, of the last micro-batch.

        The keys and values computed before are let go; what was collected about them stays.
        """
        self._collected = [(k.grad, v.grad) for k, v in self.leaves]
        self.leaves = []
        return self.tensors

    def carried(self, layers: Layers) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return where the last backward pass begins besides its loss, and with which gradients.

        Args:
            layers: Keys and values of the same prompts, computed with gradients.

        Returns:
            Keys and values, and what earlier micro-batches collected about each.
        """
        tensors, gradients = [], []
        for now, collected in zip(layers, self._collected, strict=False):
            for tensor, gradient in zip(now, collected, strict=True):
                if gradient is not None and tensor.requires_grad:
                    tensors.append(tensor)
                    gradients.append(gradient)
        self._collected = []
        return tensors, gradients


def prompt_slices(rows: Sequence[TokenRow], size: int) -> list[list[TokenRow]]:
    """Deal rows into slices whose shared prompts are read at once.

    Args:
        rows: Of a gradient step.
        size: Shared prompts of a slice at most.

    Returns:
        Rows in their order. Those that share nothing are a slice of their own; fewer than `size`
        are computed with others.
    """
    groups, alone = _alike(rows)
    place = {id(row): number for number, row in enumerate(rows)}
    slices = [
        [row for group in groups[start : start + size] for row in group]
        for start in range(0, len(groups), size)
    ]
    if slices and len(alone) < size:
        slices[-1] += alone
    elif alone:
        slices.insert(0, alone)
    return [sorted(part, key=lambda row: place[id(row)]) for part in slices]


def _alike(rows: Sequence[TokenRow]) -> tuple[list[list[TokenRow]], list[TokenRow]]:
    """Rows that begin alike, group by group, and those that begin as no other."""
    alike: dict[tuple[bytes, ...], list[TokenRow]] = {}
    for row in rows:
        keys = [image.key for image in row.images[: row.num_prompt_images]]
        alike.setdefault((row.tokens[: _length(row)].tobytes(), *keys), []).append(row)
    shares = [len(group) > 1 and _length(group[0]) > 0 for group in alike.values()]
    groups = [group for group, share in zip(alike.values(), shares, strict=True) if share]
    return groups, [
        row
        for group, share in zip(alike.values(), shares, strict=True)
        if not share
        for row in group
    ]


def _length(row: TokenRow) -> int:
    return int(np.min(list(row.prompt_ends.values())))
