"""Log-probabilities of sampled tokens, kept while they are sampled."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor


class TokenLogprobs(LogitsProcessor):
    """Watches generation, as the first logits processor, and changes nothing.

    Keeps one number a token; `generate(output_logits=True)` would keep a whole vocabulary.

    Args:
        start: Length of the prompt in tokens.
        temperature: Of the sampling; TRL's loss divides by it, too.
    """

    def __init__(self, start: int, temperature: float = 1.0) -> None:
        self.start, self.temperature = start, temperature
        self._last: torch.Tensor | None = None
        self._log_probs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores, B x V, unchanged."""
        self._settle(input_ids)
        self._last = (scores.float() / self.temperature).log_softmax(dim=-1)
        return scores

    def of(self, sequences: torch.Tensor) -> torch.Tensor:
        """Return them, B x T, of every new token, before any token was forbidden or left out.

        Args:
            sequences: B x L, what `generate` returned.
        """
        self._settle(sequences)
        return torch.stack(self._log_probs, dim=1)

    def _settle(self, ids: torch.Tensor) -> None:
        """Look up the token that followed what was seen last."""
        if self._last is not None:
            token = ids[:, self.start + len(self._log_probs)]
            self._log_probs.append(self._last.gather(1, token[:, None])[:, 0])
            self._last = None
