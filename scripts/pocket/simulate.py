"""Simulated users: boxes and clicks for training, drawn from the truth and from the error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt

from medseg_gym.backbones.batching.collate import (
    BOTTOM_RIGHT,
    INERT,
    NEGATIVE,
    NOT_A_POINT,
    POSITIVE,
    TOP_LEFT,
    TokenBatch,
)
from medseg_gym.backbones.families.pocket.encoder import SIDE

BOX_FIRST = 0.5  # share of the rows that start with a box
LOOSE = (0.35, 0.35)  # share of the boxes that are loosened, and by how much of a side at most
JITTER = 0.06  # of a side: standard deviation of the unsteady hand
DEEPEST = 0.65  # share of the clicks on the deepest point of the error; else anywhere in it


@dataclass
class Users:
    """One simulated user per row.

    Args:
        truths: N x h x w bool, h = w dividing SIDE.
        rng: The only source of randomness.
    """

    truths: np.ndarray
    rng: np.random.Generator
    tokens: list[list[tuple[float, float, int]]] = field(default_factory=list)
    boxed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def begin(self) -> None:
        """First prompt of every row: a box or a click."""
        self.boxed = self.rng.random(len(self.truths)) < BOX_FIRST
        self.tokens = [[] for _ in self.truths]
        nothing = np.zeros(self.truths.shape[1:], bool)
        for row, truth in enumerate(self.truths):
            if self.boxed[row]:
                self._add_box(row, truth)
            else:
                self._add_click(row, truth, nothing)

    def correct(self, masks: np.ndarray) -> None:
        """One more click in every row.

        Args:
            masks: N x h x w bool, what the prompts so far have made.
        """
        for row, (truth, mask) in enumerate(zip(self.truths, masks, strict=True)):
            self._add_click(row, truth & ~mask, mask & ~truth)

    @property
    def single_click(self) -> np.ndarray:
        """N bool: rows of exactly one click, which are ambiguous."""
        return np.array(
            [not b and len(t) == 1 for b, t in zip(self.boxed, self.tokens, strict=True)]
        )

    def batch(self, device: torch.device) -> TokenBatch:
        """The prompts as tokens, in the order that `collate` gives them."""
        listed = []
        for boxed, tokens in zip(self.boxed, self.tokens, strict=True):
            corners, clicks = (tokens[:2], tokens[2:]) if boxed else ([], tokens)
            listed.append([*clicks, *(corners or [(0.0, 0.0, NOT_A_POINT)])])
        length = max(map(len, listed))
        table = np.zeros((len(listed), length, 3), np.float32)
        table[:, :, 2] = INERT
        for row, tokens in enumerate(listed):
            table[row, : len(tokens)] = tokens
        return TokenBatch(
            torch.from_numpy(table[:, :, :2] - 0.5).to(device),
            torch.from_numpy(table[:, :, 2]).long().to(device),
            any(len(tokens) < length for tokens in listed),
        )

    def _add_box(self, row: int, truth: np.ndarray) -> None:
        scale = SIDE / truth.shape[0]
        rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
        sides = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * scale
        extent = np.tile(sides[2:] - sides[:2], 2)
        kind = self.rng.random()
        if kind < LOOSE[0]:
            sides += self.rng.uniform(0, LOOSE[1], 4) * extent * [-1, -1, 1, 1]
        elif kind < 0.7:
            sides += self.rng.normal(0, JITTER, 4) * extent
        low, high = np.minimum(sides[:2], sides[2:] - 1), sides[2:]
        for corner, label in ((low, TOP_LEFT), (high, BOTTOM_RIGHT)):
            x, y = corner.clip(0, SIDE)
            self.tokens[row].append((float(x), float(y), label))

    def _add_click(self, row: int, missing: np.ndarray, surplus: np.ndarray) -> None:
        if not (missing.any() or surplus.any()):
            missing = self.truths[row]  # nothing to correct: a click that says yes
        if self.rng.random() < DEEPEST:
            depths = [_depth(missing), _depth(surplus)]
            positive = depths[0].max() >= depths[1].max()
            depth = depths[0] if positive else depths[1]
            # One of the deepest: on a coarse grid there are several.
            places = np.flatnonzero(depth == depth.max())
        else:
            counts = missing.sum(), surplus.sum()
            positive = self.rng.random() * sum(counts) < counts[0]
            places = np.flatnonzero(missing if positive else surplus)
        y, x = divmod(int(self.rng.choice(places)), missing.shape[1])
        scale = SIDE / missing.shape[1]
        right, down = self.rng.uniform(0, 1, 2)
        label = POSITIVE if positive else NEGATIVE
        self.tokens[row].append((float(x + right) * scale, float(y + down) * scale, label))


def _depth(region: np.ndarray) -> np.ndarray:
    """Chessboard distance to the nearest pixel outside; beyond the image is outside."""
    if not region.any():
        return np.zeros(region.shape, np.int32)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    depth = np.zeros(region.shape, np.int32)
    depth[cut] = distance_transform_cdt(np.pad(region[cut], 1), "chessboard")[1:-1, 1:-1]
    return depth
