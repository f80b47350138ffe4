"""Micro-batches by length: little padding, no more places than allowed, every row once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medseg_agents.grpo.rollout.length_batches import length_batches


def padding(lengths, cuts):
    places = sum((cut.stop - cut.start) * lengths[cut.stop - 1] for cut in cuts)
    return 1 - sum(lengths) / places


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60).map(sorted), st.integers(1, 20))
def test_every_row_is_in_one_batch_and_none_is_larger_than_allowed(lengths, size):
    cuts = length_batches(lengths, size)
    assert [i for cut in cuts for i in range(cut.start, cut.stop)] == list(range(len(lengths)))
    for cut in cuts:
        assert (cut.stop - cut.start) * lengths[cut.stop - 1] <= size * lengths[-1]


@pytest.mark.parametrize(("rows", "size"), [(64, 16), (10, 4), (3, 8), (1, 1)])
def test_rows_of_one_length_are_cut_into_pieces(rows, size):
    cuts = length_batches([100] * rows, size)
    assert len(cuts) == -(-rows // size)
    assert max(cut.stop - cut.start for cut in cuts) <= size
    assert length_batches([], size) == []


def test_episodes_of_few_turns_leave_little_padding():
    """Lengths of 64 episodes that a fine-tuned tiny model played: two to five turns."""
    lengths = sorted([124] * 5 + [133] * 4 + [196] * 22 + [260] * 15 + [324] * 10 + [332] * 8)
    pieces = [slice(start, start + 16) for start in range(0, 64, 16)]
    cuts = length_batches(lengths, 16)
    assert padding(lengths, pieces) > 0.1
    assert padding(lengths, cuts) < 0.02 and len(cuts) <= 5
