"""Log-probabilities of tokens before an iteration's first gradient step, by the learner itself.

With one gradient step an iteration they are those of the step's own forward pass. With several they
are kept: of the rows of the first step from its forward pass, of the others from a pass without
gradients before it. So epochs cost nothing more, and m minibatches (m - 1) / m of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.rollout.token_rows import TokenRow
from medseg_agents.grpo.shared_prompts import SharedPrompts, prompt_slices


def keep_old(rows: Sequence[TokenRow], log_probs: torch.Tensor) -> None:
    """Keep log-probabilities in rows that have none yet.

    Args:
        rows: Of a micro-batch.
        log_probs: (N,) of their completion tokens.
    """
    values = log_probs.detach().float().cpu().numpy()
    start = 0
    for row in rows:
        places = np.flatnonzero(row.completion_mask)
        if row.old_log_probs is None:
            row.old_log_probs = np.zeros(len(row.tokens), np.float32)
            row.old_log_probs[places] = values[start : start + len(places)]
        start += len(places)


@torch.no_grad()
def record_old(
    module: Any, rows: Sequence[TokenRow], micro_batch: int, device: torch.device | str
) -> None:
    """Compute and keep log-probabilities with the weights as they are.

    Args:
        module: The learner's `HFChatModule`.
        rows: That are learned from after another gradient step.
        micro_batch: Rows computed at once.
        device: Of the module.
    """
    rows = sorted(rows, key=lambda row: len(row.tokens))
    image = module.base.config.image_token_id
    shares = bool(rows) and module.shares_prompts
    for together in prompt_slices(rows, micro_batch) if shares else [rows]:
        prompts = SharedPrompts(together, module.processor, image, device) if shares else None
        if prompts:
            prompts.collect(module.read_prompts(prompts.tensors))
        for start in range(0, len(together), micro_batch):
            part = together[start : start + micro_batch]
            tensors: dict[str, Any] = collate(
                part, module.processor, image, module.shares_images, None, device, prompts
            )
            if prompts:
                tensors["prompt_layers"] = prompts.leaves
            out = module.forward_train({**tensors, "log_probs_only": True})
            keep_old(part, out["log_probs"])
