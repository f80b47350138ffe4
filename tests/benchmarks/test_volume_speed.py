"""The benchmark of volumes' seconds and memory measures what it says."""

from __future__ import annotations

import pytest

from benchmarks.throughput.volume_speed import batch_against_single, one_box

ONE = 2_300_000
"""Bytes of an embedding of pocket's, about."""


def test_a_long_volume_comes_back_from_disk_instead_of_being_encoded_again():
    row = one_box("pocket", "cpu", 12, 4 * ONE, 1, threads=1, side=64)
    assert row["encodes"] == 12 and row["reads_from_disk"] >= 8
    assert row["embeddings_in_memory_mb"] <= 4 * ONE / 1e6 < row["embeddings_on_disk_mb"]
    assert row["dice"] > 0.8


def test_the_batch_and_single_environments_play_the_same():
    rates = batch_against_single("ellipse", "cpu", 1)
    assert rates["vector"] > 0 and rates["ratio"] == rates["vector"] / rates["single"]


@pytest.mark.slow
def test_600_slices_of_512_pixels_run_in_bounded_memory():
    row = one_box("pocket", "cpu", 600, 128 << 20, 1, threads=2)
    assert row["encodes"] == 600 and row["reads_from_disk"] > 400
    assert row["memory_mb"] < 1500 and row["embeddings_in_memory_mb"] < 135
