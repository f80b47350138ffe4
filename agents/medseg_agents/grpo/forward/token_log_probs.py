"""Log-probabilities and entropies of chosen tokens, with logits of a few tokens at a time.

Logits are the largest tensor of a gradient step: 1000 tokens of a vocabulary of 151 936 are 0.6 GB
in float32, and a softmax with its gradient holds several of that size. Here only those of one chunk
exist; in the backward pass they are computed a second time, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


def token_log_probs(
    head: Any,
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    *,
    temperature: float = 1.0,
    forbidden: Sequence[int] = (),
    chunk: int = 0,
    entropy_learns: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute log-probabilities of chosen tokens and entropies of what they were drawn from.

    Args:
        head: Module from hidden states to logits, tied to the input embeddings or not, with
            adapters or without.
        hidden: N x width, each state predicts one token.
        chosen: (N,) int64, the tokens that were drawn.
        temperature: By which logits are divided.
        forbidden: Tokens that are never drawn: their probability is 0.
        chunk: Tokens whose logits exist at once; 0 is all.
        entropy_learns: Whether gradients flow through entropies.

    Returns:
        Log-probabilities and entropies in nats, both (N,) float32.
    """
    never = torch.as_tensor(forbidden, dtype=torch.long, device=hidden.device)

    def of_chunk(states: torch.Tensor, tokens: torch.Tensor) -> Any:
        return _Chosen.apply(head(states), tokens, temperature, never, entropy_learns)

    size = chunk or len(hidden)
    if size >= len(hidden):  # nothing is saved by computing a single chunk twice
        log_probs, entropy = of_chunk(hidden, chosen)
        return log_probs, entropy
    parts = []
    for states, tokens in zip(hidden.split(size), chosen.split(size), strict=True):
        if torch.is_grad_enabled():
            parts.append(checkpoint(of_chunk, states, tokens, use_reentrant=False))
        else:
            parts.append(of_chunk(states, tokens))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


class _Chosen(torch.autograd.Function):
    """From logits to the log-probability of one token each, and to the entropy.

    With p the probabilities, H the entropy and c the chosen token, the gradients by logit j are
    [j = c] - p_j of log p_c and -p_j (log p_j + H) of H. Written out because automatic
    differentiation would keep a tensor as large as the logits for every step between.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        chosen: torch.Tensor,
        temperature: float,
        forbidden: torch.Tensor,
        entropy_learns: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = logits.to(torch.float32, copy=True).div_(temperature)
        log_probs = scaled.index_fill_(1, forbidden, -torch.inf).log_softmax(dim=-1)
        del scaled
        entropy = torch.special.entr(log_probs.exp()).sum(dim=-1)
        ctx.save_for_backward(log_probs, chosen, entropy, forbidden)
        ctx.temperature, ctx.entropy_learns, ctx.dtype = temperature, entropy_learns, logits.dtype
        if not entropy_learns:
            ctx.mark_non_differentiable(entropy)
        return log_probs.gather(1, chosen[:, None])[:, 0], entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_log_prob: torch.Tensor, by_entropy: torch.Tensor) -> Any:
        log_probs, chosen, entropy, forbidden = ctx.saved_tensors
        gradient = log_probs.exp()
        if ctx.entropy_learns:
            # A probability of 0 has a logarithm of minus infinity: 0 times that is 0 here.
            factor = log_probs.clamp(min=-1e4).add_(entropy[:, None]).mul_(by_entropy[:, None])
            gradient.mul_(factor.add_(by_log_prob[:, None])).neg_()
            del factor
        else:
            gradient.mul_(-by_log_prob[:, None])
        gradient.scatter_add_(1, chosen[:, None], by_log_prob[:, None])
        gradient.div_(ctx.temperature).index_fill_(1, forbidden, 0.0)
        return gradient.to(ctx.dtype), None, None, None, None
