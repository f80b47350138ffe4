"""Logits become masks above zero, counted against the truth of their own row."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.protocol import Prediction
from medseg_gym.episodes.masks import (
    PackedMask,
    _measure_on_device,
    measure_masks,
    sample_squares,
)

SIZES = [(2, 3), (3, 2), (1, 6), (4, 4)]


def test_foreground_is_strictly_above_zero():
    logits = torch.tensor([[1e-6, 0.0, -0.0], [-1e-6, 5.0, -3.0]])
    truth = torch.tensor([[True, True, False], [True, False, True]])
    ((mask, pixels, intersection, _),) = measure_masks([logits], [truth])
    assert mask.tolist() == [[True, False, False], [False, True, False]]
    assert (pixels, intersection) == (2, 1)


@given(st.lists(st.sampled_from(SIZES), min_size=1), st.integers(0, 99))
def test_rows_of_any_sizes_keep_their_order_and_truth(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(size, generator=generator) for size in sizes]
    truths = [torch.randn(size, generator=generator) > 0 for size in sizes]
    result = measure_masks(logits, truths)
    assert len(result) == len(sizes)
    for (mask, pixels, intersection, fetched), values, truth in zip(
        result, logits, truths, strict=True
    ):
        assert fetched is None
        assert torch.equal(mask, values > 0)
        assert pixels == sum(v > 0 for v in values.flatten().tolist())
        assert intersection == int((mask & truth).sum())


@pytest.mark.parametrize("fetch", [None, partial(sample_squares, side=5), lambda masks: masks])
@given(st.lists(st.sampled_from(SIZES), min_size=1), st.integers(0, 99))
def test_a_gpu_measures_what_a_cpu_does(fetch, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(size, generator=generator) for size in sizes]
    truths = [torch.randn(size, generator=generator) > 0 for size in sizes]
    low = Prediction(torch.randn(len(sizes), 2, 2, generator=generator), torch.zeros(len(sizes)))
    here = measure_masks(logits, truths, "b", low, fetch)
    there = _measure_on_device(logits, truths, "b", low, low.iou, fetch)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.mask, other.mask)
        assert one[1:3] == other[1:3]
        assert (one.fetched is None) == (other.fetched is None) == (fetch is None)
        if fetch is not None:
            np.testing.assert_array_equal(one.fetched, other.fetched)
            np.testing.assert_array_equal(one.fetched, fetch(one.mask[None])[0])


def test_a_gpu_refuses_what_is_not_finite_as_a_cpu_does():
    logits = [torch.zeros(2, 3), torch.full((3, 2), torch.nan)]
    truths = [torch.zeros(2, 3, dtype=bool), torch.zeros(3, 2, dtype=bool)]
    with pytest.raises(NonFiniteError, match="rows 1"):
        _measure_on_device(logits, truths, "b", None, None, partial(sample_squares, side=4))


def test_a_packed_mask_is_the_same_mask():
    mask = np.random.default_rng(0).random((5, 13)) > 0.5
    packed = PackedMask.of(mask)
    assert packed.bits.nbytes == 10 and packed.array().dtype == bool
    np.testing.assert_array_equal(packed.array(), mask)
