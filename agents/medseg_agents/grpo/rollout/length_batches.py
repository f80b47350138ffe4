"""Micro-batches of rows of like length: little of them is padding, none is larger than allowed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def length_batches(lengths: Sequence[int], size: int) -> list[slice]:
    """Cut rows in the order of their lengths into micro-batches.

    A micro-batch has at most as many places as `size` of the longest rows: more short rows, fewer
    long ones. Cuts are where they leave the least padding, but one more micro-batch must spare as
    much as one of the longest rows. Rows of one length are cut into pieces of `size`.

    Args:
        lengths: Tokens of the rows, ascending.
        size: Rows of the longest length in a micro-batch.

    Returns:
        Slices of the rows, in order.
    """
    if not len(lengths):
        return []
    longest = int(lengths[-1])
    room = size * longest
    costs = np.zeros(len(lengths) + 1, np.int64)  # of the rows before each, cut at best
    begins = np.zeros(len(lengths) + 1, np.int64)
    for end, length in enumerate(map(int, lengths), start=1):
        first = max(0, end - room // max(1, length))
        places = (end - np.arange(first, end)) * length
        total = costs[first:end] + places + longest
        best = int(total.argmin())
        costs[end], begins[end] = total[best], first + best
    slices, end = [], len(lengths)
    while end:
        slices.append(slice(int(begins[end]), end))
        end = int(begins[end])
    return slices[::-1]
