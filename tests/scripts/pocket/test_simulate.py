"""Simulated users prompt inside the truth and inside the error, as the environment's oracles do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones.batching.collate import (
    BOTTOM_RIGHT,
    NEGATIVE,
    NOT_A_POINT,
    POSITIVE,
    TOP_LEFT,
)
from scripts.pocket import simulate
from scripts.pocket.losses import AffinityLoss, EmbeddingLoss, iou, mask_loss
from scripts.pocket.simulate import Users


def square(low: int, high: int, side: int = 128) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[low:high, low:high] = True
    return mask


@given(st.integers(0, 2**32 - 1))
def test_prompts_lie_where_they_should(seed):
    truths = np.stack([square(20, 60), square(70, 74)] * 4)
    users = Users(truths, np.random.default_rng(seed))
    users.begin()
    masks = np.stack([square(40, 90)] * 8)
    users.correct(masks)
    for row, tokens in enumerate(users.tokens):
        truth, mask = truths[row], masks[row]
        if users.boxed[row]:
            (x1, y1, first), (x2, y2, last) = tokens[:2]
            assert (first, last) == (TOP_LEFT, BOTTOM_RIGHT) and x1 < x2 and y1 < y2
            xs = np.flatnonzero(truth.any(axis=0))
            extent = 2 * (xs.max() + 1 - xs.min())
            assert abs(x1 - 2 * xs.min()) <= 0.4 * extent and 0 <= x1 and x2 <= 256
        else:
            x, y, label = tokens[0]
            assert label == POSITIVE and truth[int(y / 2), int(x / 2)]
        x, y, label = tokens[-1]
        place = int(y / 2), int(x / 2)
        assert (truth & ~mask)[place] if label == POSITIVE else (mask & ~truth)[place]
    batch = users.batch(torch.device("cpu"))
    # A box is two tokens, a click one and SAM's "not a point" another: nothing to pad.
    assert batch.coords.shape == (8, 3, 2) and batch.labels.shape == (8, 3) and not batch.padded
    for row, labels in enumerate(batch.labels.tolist()):
        assert (NOT_A_POINT in labels) != bool(users.boxed[row])


def test_the_deepest_point_is_the_middle(monkeypatch):
    monkeypatch.setattr(simulate, "DEEPEST", 1.0)
    monkeypatch.setattr(simulate, "BOX_FIRST", 0.0)
    users = Users(square(20, 61)[None], np.random.default_rng(0))
    users.begin()
    assert users.single_click.all()
    x, y, _ = users.tokens[0][0]
    assert 80 <= x < 82 and 80 <= y < 82  # pixel 40 of 128, in 256
    users.correct(square(0, 128)[None])
    assert users.tokens[0][1][2] == NEGATIVE and not users.single_click.any()


def test_a_perfect_mask_is_confirmed():
    users = Users(square(20, 60)[None], np.random.default_rng(0))
    users.begin()
    users.correct(square(20, 60)[None])
    assert users.tokens[0][-1][2] == POSITIVE


def test_the_mask_loss_prefers_the_truth_and_hears_tiny_targets():
    truth = torch.from_numpy(np.stack([square(20, 60), square(64, 67)])).float()
    right, wrong = 40 * (truth - 0.5), -6 * torch.ones_like(truth)
    assert (mask_loss(right, truth) < 0.1).all() and (mask_loss(wrong, truth) > 0.6).all()
    assert iou(right, truth).tolist() == pytest.approx([1, 1])
    assert iou(wrong, truth).tolist() == pytest.approx([0, 0])
    many = mask_loss(torch.stack([right, wrong], 1), truth[:, None])
    assert many.shape == (2, 2) and (many[:, 0] < many[:, 1]).all()


def test_the_heads_can_be_taught():
    torch.manual_seed(0)
    regions = torch.from_numpy(square(64, 160, 256).astype(np.int64))[None]
    embedding = torch.nn.Parameter(torch.randn(1, 8, 32, 32))
    affinity, read = AffinityLoss(8), EmbeddingLoss(8, 16)
    wanted = torch.randn(1, 16, 32, 32)
    rate = torch.optim.Adam([embedding, *affinity.parameters(), *read.parameters()], lr=0.05)
    history = []
    for _ in range(40):
        loss = affinity(embedding, regions) + read(embedding, wanted)
        rate.zero_grad()
        loss.backward()
        rate.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]
