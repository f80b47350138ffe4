"""What a server was asked, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Usage:
    """What was asked and what it cost.

    Args:
        requests: Answered.
        prompt_tokens: Told to the model, pictures included, as far as the server counts them.
        answer_tokens: Said by it.
        uncounted: Answers of a server that said nothing about tokens.
        cut_off: Answers that ran into the limit of tokens.
        repeated: Further tries after a failed one.
        failed: Conversations that were given up.
        cost: Dollars, by the prices in the options.
    """

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0
    cut_off: int = 0
    repeated: int = 0
    failed: int = 0
    cost: float = 0.0

    def count(self, completion: Mapping[str, Any], price_in: float, price_out: float) -> None:
        """Count an answered request.

        Args:
            completion: As the server sent it.
            price_in: Dollars for a million prompt tokens.
            price_out: Dollars for a million tokens of answers.
        """
        self.requests += 1
        self.cut_off += completion["choices"][0].get("finish_reason") == "length"
        tokens = completion.get("usage")
        if not isinstance(tokens, Mapping):
            self.uncounted += 1
            return
        self.prompt_tokens += tokens.get("prompt_tokens") or 0
        self.answer_tokens += tokens.get("completion_tokens") or 0
        self.cost = (self.prompt_tokens * price_in + self.answer_tokens * price_out) / 1e6

    def __str__(self) -> str:
        """One line."""
        line = f"{self.requests} requests, {self.prompt_tokens} + {self.answer_tokens} tokens"
        line += f", ${self.cost:.4f}" if self.cost else ""
        line += f", {self.uncounted} not counted by the server" if self.uncounted else ""
        line += f", {self.cut_off} cut off at the limit" if self.cut_off else ""
        line += f", {self.repeated} asked again" if self.repeated else ""
        return line + (f", {self.failed} conversations given up" if self.failed else "")
