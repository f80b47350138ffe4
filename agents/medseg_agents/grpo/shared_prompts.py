"""First prompts that several rows have in common: read once a gradient step, and learned through.

The episodes of a group begin alike: system message, task, first picture. Their rows need keys and
values of that part and nothing else of it, so it is computed once for all of them. A gradient step
over several small batches reads it twice: at first without gradients, for keys and values that
collect what the batches would change about them, then with the last batch, whose backward pass
carries on what was collected. The gradients are those of rows computed whole, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.rollout.processed_rows import pad, process_pictures
from medseg_agents.grpo.rollout.token_rows import TokenRow

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each prompts x heads x tokens x width."""


class SharedPrompts:
    """Those of the rows of one gradient step; none where no two rows begin alike.

    The last token of a prompt is left to each row: what it says first is predicted there.

    Args:
        rows: Of the step.
        processor: Of the model.
        image_token: Place holder of a picture's tokens.
        device: Where tensors go.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        processor: Any,
        image_token: int,
        device: torch.device | str = "cpu",
    ) -> None:
        alike: dict[tuple[bytes, ...], list[TokenRow]] = {}
        for row in rows:
            keys = [picture.key for picture in row.pictures[: row.first_pictures]]
            alike.setdefault((row.tokens[: _length(row)].tobytes(), *keys), []).append(row)
        groups = [found for found in alike.values() if len(found) > 1 and _length(found[0])]
        self._numbers = {id(row): n for n, found in enumerate(groups) for row in found}
        self.lengths = [_length(found[0]) for found in groups]
        self.leaves: Layers = []
        if not groups:
            return
        first = [found[0] for found in groups]
        ids, mask = pad([row.tokens[: _length(row)] for row in first])
        shown = process_pictures(
            [row.pictures[: row.first_pictures] for row in first], True, processor, device
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
        """Tokens of the longest."""
        return max(self.lengths, default=0)

    def number(self, row: TokenRow) -> int | None:
        """Which prompt a row begins with; None if it shares none."""
        return self._numbers.get(id(row))

    def collect(self, layers: Layers) -> None:
        """Take keys and values, computed without gradients, that small batches are computed with.

        Args:
            layers: Of the model.
        """
        self.leaves = [
            (k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in layers
        ]

    def carried(self, layers: Layers) -> torch.Tensor:
        """What to add to the last loss, so that its backward pass carries on what was collected.

        Args:
            layers: Keys and values of the same prompts, computed with gradients.
        """
        total = layers[0][0].new_zeros(())
        for now, before in zip(layers, self.leaves, strict=False):
            for tensor, leaf in zip(now, before, strict=True):
                if leaf.grad is not None and tensor.requires_grad:
                    total = total + (tensor * leaf.grad).sum()
        return total


def _length(row: TokenRow) -> int:
    return int(np.min(list(row.ends.values())))
