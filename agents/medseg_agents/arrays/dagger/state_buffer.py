"""The newest labelled states, in memory."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_BITS = ("mask", "prompts")
"""Planes of 0 and 255: kept as bits."""


@dataclass(frozen=True)
class LabelledState:
    """A state, and what is to be learned from it.

    Args:
        case: Key of its case; its image is kept once.
        observation: Of one slot, see `MedSegEnv`.
        action: The annotator's, (5,).
        clicks: C x C, see `Labels`.
        truth: C x C, see `Labels`.
    """

    case: str
    observation: dict[str, Any]
    action: np.ndarray
    clicks: np.ndarray
    truth: np.ndarray


class StateBuffer:
    """Keeps the newest states; draws minibatches of them, each state as likely as the others.

    Args:
        size: States that are kept.
    """

    def __init__(self, size: int) -> None:
        self._rows: deque[tuple[LabelledState, float]] = deque()
        self.size = size
        self._images: dict[str, np.ndarray] = {}
        self._uses: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, state: LabelledState, episode_return: float) -> None:
        """Keep a state; the oldest goes if there is no room.

        Args:
            state: What was seen.
            episode_return: What its episode brought from there on.
        """
        if len(self._rows) >= self.size:
            self._forget(self._rows.popleft()[0].case)
        seen = dict(state.observation)
        self._images.setdefault(state.case, seen.pop("image"))
        self._uses[state.case] += 1
        for name in _BITS:
            seen[name] = np.packbits(seen[name] > 0)
        kept = LabelledState(state.case, seen, state.action, state.clicks, state.truth)
        self._rows.append((kept, episode_return))

    def draw(self, rows: int, generator: np.random.Generator) -> dict[str, Any]:
        """Draw a minibatch.

        Args:
            rows: Of it.
            generator: Decides.

        Returns:
            `observation` (tensors with a leading axis B, as the environment shows it), `actions`
            B x 5, `clicks` and `truth` B x C x C uint8, and `returns` (B,) float32.
        """
        chosen = [self._rows[i] for i in generator.integers(len(self._rows), size=rows)]
        states = [state for state, _ in chosen]
        images = np.stack([self._images[state.case] for state in states])
        side = images.shape[1]
        observation = {"image": images}
        for name in states[0].observation:
            values = np.stack([state.observation[name] for state in states])
            if name in _BITS:
                bits = np.unpackbits(values, axis=1).reshape(rows, side, side, -1)
                values = bits * np.uint8(255)
            observation[name] = values
        return {
            "observation": {name: torch.from_numpy(v) for name, v in observation.items()},
            "actions": torch.from_numpy(np.stack([state.action for state in states])),
            "clicks": torch.from_numpy(np.stack([state.clicks for state in states])),
            "truth": torch.from_numpy(np.stack([state.truth for state in states])),
            "returns": torch.tensor([value for _, value in chosen], dtype=torch.float32),
        }

    def _forget(self, case: str) -> None:
        self._uses[case] -= 1
        if not self._uses[case]:
            del self._uses[case], self._images[case]
