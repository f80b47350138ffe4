"""Log-probabilities of tokens before an iteration's first gradient step, by the learner itself.

With one gradient step an iteration they are those of the step's own forward pass. With several they
are kept: of the rows of the first step from its forward pass, of the others from a pass without
gradients before it. So epochs cost nothing more, and m minibatches (m - 1) / m of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medseg_agents.grpo.rollout.token_rows import TokenRow


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
