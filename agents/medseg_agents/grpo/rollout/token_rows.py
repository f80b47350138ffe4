"""Episodes as rows of tokens: what the model read and generated, exactly as it did.

A conversation usually only grows: then an episode is one row. Where what is shown next does not
begin with what was shown and generated before (history cut short, a template that drops earlier
thoughts or ends a turn with another token than the model did), a new row begins. So each
token's probability is computed after exactly the tokens after which it was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class HashedImage:
    """An image with the hash that tells it from others.

    Args:
        pixels: H x W x 3 uint8.
        key: Hash of the pixels and their shape.
    """

    pixels: np.ndarray
    key: bytes

    @classmethod
    def of(cls, pixels: np.ndarray) -> HashedImage:
        """Build from pixels."""
        key = hashlib.blake2b(pixels.tobytes(), digest_size=16)
        key.update(repr(pixels.shape).encode())
        return cls(pixels, key.digest())


@dataclass(frozen=True)
class TurnTokens:
    """One turn of a model.

    Args:
        prompt: Tokens that it was shown, (L,) int.
        tokens: Tokens of its completion, (T,) int.
        log_probs: Of them, when they were drawn, (T,) float32.
        images: Those in the prompt, in order.
    """

    prompt: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    images: tuple[HashedImage, ...]


@dataclass
class TokenRow:
    """Tokens of one or several turns of an episode.

    Args:
        tokens: (L,) int64.
        completion_mask: (L,) bool: the model generated the token, so it is learned from.
        log_probs: (L,) float32, of generated tokens; 0 elsewhere.
        turns: (L,) int64, the number of the turn that a token was generated in; -1 elsewhere.
        images: In order of their place holders.
        prompt_ends: By turn, the index of the last token of its prompt: where its value is read.
        episode: Number of the episode.
        num_prompt_images: How many of the images are in its first prompt.
        advantages: (L,) float32; set by a connector.
        values: By turn, the target of the value head; set by a connector.
        old_log_probs: (L,) float32, those of the learner before the first gradient step that
            learned from any row of the iteration; None until they are known.
    """

    tokens: np.ndarray
    completion_mask: np.ndarray
    log_probs: np.ndarray
    turns: np.ndarray
    images: list[HashedImage]
    prompt_ends: dict[int, int]
    episode: int
    num_prompt_images: int
    advantages: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    values: dict[int, float] = field(default_factory=dict)
    old_log_probs: np.ndarray | None = None

    def set_advantages(self, advantages: Sequence[float] | np.ndarray) -> None:
        """Give every generated token the advantage of its turn.

        Args:
            advantages: One per turn of the episode.
        """
        by_turn = np.append(
            np.asarray(advantages, np.float32), np.float32(0)
        )  # [-1]: not generated
        self.advantages = by_turn[self.turns]


def rows_of(turns: Sequence[TurnTokens], episode: int) -> list[TokenRow]:
    """Return the rows of one episode, as few as are exact.

    Args:
        turns: In order.
        episode: Its number.
    """
    rows: list[TokenRow] = []
    for number, turn in enumerate(turns):
        row = rows[-1] if rows else None
        if row is None or not _continues(row, turn):
            row = TokenRow(
                np.zeros(0, np.int64),
                np.zeros(0, bool),
                np.zeros(0, np.float32),
                np.zeros(0, np.int64),
                [],
                {},
                episode,
                len(turn.images),
            )
            rows.append(row)
        new = turn.prompt[len(row.tokens) :]
        row.images = list(turn.images)
        row.prompt_ends[number] = len(turn.prompt) - 1
        row.tokens = np.concatenate([row.tokens, new, turn.tokens]).astype(np.int64)
        row.completion_mask = np.concatenate(
            [row.completion_mask, np.zeros(len(new), bool), np.ones(len(turn.tokens), bool)]
        )
        row.log_probs = np.concatenate(
            [row.log_probs, np.zeros(len(new), np.float32), turn.log_probs]
        )
        row.turns = np.concatenate(
            [row.turns, np.full(len(new), -1), np.full(len(turn.tokens), number)]
        )
    return rows


def _continues(row: TokenRow, turn: TurnTokens) -> bool:
    length, known = len(row.tokens), len(row.images)
    return (
        len(turn.prompt) > length
        and np.array_equal(turn.prompt[:length], row.tokens)
        and [p.key for p in turn.images[:known]] == [p.key for p in row.images]
    )
