"""Episodes as rows of tokens: what the model read and said, exactly as it read and said it.

A conversation usually only grows: then an episode is one row. Where what is shown next does not
begin with what was shown and said before (history cut short, a template that drops earlier
thoughts, an answer that tokenizes otherwise than it was generated), a new row begins. So each
token's probability is computed after exactly the tokens after which it was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Picture:
    """A picture, and what tells it from others.

    Args:
        pixels: P x P x 3 uint8.
        key: Hash of the pixels.
    """

    pixels: np.ndarray
    key: bytes

    @classmethod
    def of(cls, pixels: np.ndarray) -> Picture:
        """Build from pixels."""
        return cls(pixels, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())


@dataclass(frozen=True)
class TurnTokens:
    """One turn of a model.

    Args:
        prompt: Tokens that it was shown, (L,) int.
        tokens: Tokens that it said, (T,) int.
        log_probs: Of what it said, when it was said, (T,) float32.
        pictures: Those in the prompt, in order.
    """

    prompt: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    pictures: tuple[Picture, ...]


@dataclass
class TokenRow:
    """Tokens of one or several turns of an episode.

    Args:
        tokens: (L,) int64.
        said: (L,) bool: the model said it, so it is learned from.
        log_probs: (L,) float32, of what was said.
        turns: (L,) int64, the number of the turn that a token was said in; -1 elsewhere.
        pictures: In order of their place holders.
        ends: By turn, the index of the last token of its prompt: where its value is read.
        episode: Number of the episode.
        first_pictures: How many of the pictures are in its first prompt.
        advantages: (L,) float32; set by a connector.
        values: By turn, what the value head is taught; set by a connector.
    """

    tokens: np.ndarray
    said: np.ndarray
    log_probs: np.ndarray
    turns: np.ndarray
    pictures: list[Picture]
    ends: dict[int, int]
    episode: int
    first_pictures: int
    advantages: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    values: dict[int, float] = field(default_factory=dict)

    def give(self, advantages: Sequence[float] | np.ndarray) -> None:
        """Set every said token's advantage to its turn's.

        Args:
            advantages: One per turn of the episode.
        """
        by_turn = np.append(np.asarray(advantages, np.float32), np.float32(0))  # [-1]: not said
        self.advantages = by_turn[self.turns]


def rows_of(turns: Sequence[TurnTokens], episode: int) -> list[TokenRow]:
    """Rows of one episode, as few as are exact.

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
                len(turn.pictures),
            )
            rows.append(row)
        new = turn.prompt[len(row.tokens) :]
        row.pictures = list(turn.pictures)
        row.ends[number] = len(turn.prompt) - 1
        row.tokens = np.concatenate([row.tokens, new, turn.tokens]).astype(np.int64)
        row.said = np.concatenate([row.said, np.zeros(len(new), bool), np.ones_like(turn.tokens)])
        row.said = row.said.astype(bool)
        row.log_probs = np.concatenate(
            [row.log_probs, np.zeros(len(new), np.float32), turn.log_probs]
        )
        row.turns = np.concatenate(
            [row.turns, np.full(len(new), -1), np.full(len(turn.tokens), number)]
        )
    return rows


def _continues(row: TokenRow, turn: TurnTokens) -> bool:
    length, known = len(row.tokens), len(row.pictures)
    return (
        len(turn.prompt) > length
        and np.array_equal(turn.prompt[:length], row.tokens)
        and [p.key for p in turn.pictures[:known]] == [p.key for p in row.pictures]
    )
