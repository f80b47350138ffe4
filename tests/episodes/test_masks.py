"""Logits become masks above zero, counted against the truth of their own row."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.episodes.masks import measure_masks


def test_foreground_is_strictly_above_zero():
    logits = torch.tensor([[1e-6, 0.0, -0.0], [-1e-6, 5.0, -3.0]])
    truth = torch.tensor([[True, True, False], [True, False, True]])
    ((mask, pixels, intersection),) = measure_masks([logits], [truth])
    assert mask.tolist() == [[True, False, False], [False, True, False]]
    assert (pixels, intersection) == (2, 1)


@given(st.lists(st.sampled_from([(2, 3), (3, 2), (1, 6), (4, 4)]), min_size=1), st.integers(0, 99))
def test_rows_of_any_sizes_keep_their_order_and_truth(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(size, generator=generator) for size in sizes]
    truths = [torch.randn(size, generator=generator) > 0 for size in sizes]
    result = measure_masks(logits, truths)
    assert len(result) == len(sizes)
    for (mask, pixels, intersection), values, truth in zip(result, logits, truths, strict=True):
        assert torch.equal(mask, values > 0)
        assert pixels == sum(v > 0 for v in values.flatten().tolist())
        assert intersection == int((mask & truth).sum())
