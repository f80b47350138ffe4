"""Choice of the next token: forbidden tokens, and draws that belong to a slot.

Every slot draws from numbers of its own, fixed before its turn begins. So what a slot generates
depends on its own generator and its own logits; batch mates and the number of slots enter only
through the last bits of the logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor


def forbidden_tokens(model: Any, processor: Any) -> list[int]:
    """Return the tokens that no completion may hold, sorted.

    The place holders of images and videos (one of them in a completion, and the number of images
    no longer fits), every other special token but those that end a turn, and the numbers beyond the
    tokenizer's vocabulary that some models' outputs are padded to. Whoever trains on sampled
    completions must forbid the same ones there.
    """
    tokenizer = processor.tokenizer
    allowed = set(end_tokens(model, processor))
    tokens = set(tokenizer.all_special_ids)
    for name in (
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
    ):
        value = getattr(model.config, name, None)
        if isinstance(value, int):
            tokens.add(value)
    size = model.get_input_embeddings().weight.shape[0]
    tokens.update(range(len(tokenizer), size))
    return sorted(token for token in tokens - allowed if 0 <= token < size)


def end_tokens(model: Any, processor: Any) -> list[int]:
    """Return the tokens that end a completion."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    return sorted({int(e) for e in [*ends, processor.tokenizer.eos_token_id] if e is not None})


class Forbid(LogitsProcessor):
    """Never lets some tokens be chosen.

    Args:
        tokens: Their numbers.
    """

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = torch.tensor(tokens, dtype=torch.long)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores, B x V, with minus infinity for them."""
        return scores.index_fill(1, self.tokens.to(scores.device), -torch.inf)


class SlotDraws(LogitsProcessor):
    """Draws the next token of each row with that row's own numbers.

    The token is where the row's number falls in the cumulative distribution; it alone keeps a
    finite score, so that greedy decoding takes it. Its log-probability is kept.

    Args:
        draws: B x T float64 in [0, 1): one number for each row and new token.
        start: Length of the prompt in tokens.
    """

    def __init__(self, draws: np.ndarray, start: int) -> None:
        self.draws = torch.from_numpy(draws)
        self.start = start
        self._log_probs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores, B x V, of which one a row is left."""
        number = self.draws[:, input_ids.shape[1] - self.start].to(scores.device, torch.float32)
        log_probs = scores.float().log_softmax(dim=-1)
        sums = log_probs.exp().cumsum(dim=-1)
        # The sums may end a little beside 1, and the last tokens may be impossible ones.
        aim = number[:, None] * sums[:, -1:]
        chosen = torch.searchsorted(sums, aim, right=True)
        last = scores.shape[1] - 1 - (scores > -torch.inf).flip(1).int().argmax(1, keepdim=True)
        chosen = torch.minimum(chosen, last)
        self._log_probs.append(log_probs.gather(1, chosen))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)

    def log_probs(self) -> np.ndarray:
        """Return log-probabilities of the tokens drawn so far, B x T float32."""
        return torch.cat(self._log_probs, dim=1).cpu().numpy()
