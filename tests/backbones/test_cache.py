"""The embedding cache: one encode per distinct image while it holds, bounded in bytes."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones import Embedding, EmbeddingCache, embedding_cache
from medseg_gym.backbones.cache import DEFAULT_CACHE_BYTES

BYTES = 40


class Encoder:
    """Encodes an image, named by its one pixel value, to ten floats; keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def encode(self, images):
        values = [int(image[0, 0, 0]) for image in images]
        self.calls.append(values)
        return [Embedding((torch.full((10,), float(v)),), (1, 1), (1, 1)) for v in values]


def ask(cache: EmbeddingCache, encoder: Encoder, values: list[int]) -> None:
    """Request images by value, and check that each answer belongs to its image."""
    images = [np.full((1, 1, 3), value, np.uint8) for value in values]
    result = cache.get(encoder, images, [f"hash of {value}" for value in values])
    assert [int(embedding.features[0][0]) for embedding in result] == values


def counted(cache: EmbeddingCache) -> tuple[int, int, int]:
    """Hits, misses, encodes."""
    counters = cache.counters
    return counters.hits, counters.misses, counters.encodes


def test_each_distinct_image_is_encoded_once_in_one_call():
    cache, encoder = EmbeddingCache(), Encoder()
    ask(cache, encoder, [3, 1, 3, 2, 1])
    assert encoder.calls == [[3, 1, 2]]
    ask(cache, encoder, [1, 4, 2])
    assert encoder.calls == [[3, 1, 2], [4]]
    ask(cache, encoder, [4, 4, 4])
    assert len(encoder.calls) == 2 and len(cache) == 4 and cache.nbytes == 4 * BYTES


def test_counters_count_requests_and_encodes():
    cache, encoder = EmbeddingCache(), Encoder()
    ask(cache, encoder, [1, 2, 1])
    assert counted(cache) == (1, 2, 2)
    ask(cache, encoder, [2, 3])
    assert counted(cache) == (2, 3, 3)
    cache.clear()
    assert counted(cache) == (0, 0, 0)
    assert (len(cache), cache.nbytes) == (0, 0)
    ask(cache, encoder, [2])
    assert encoder.calls[-1] == [2]


def test_the_least_recently_used_goes_first():
    cache, encoder = EmbeddingCache(max_bytes=3 * BYTES), Encoder()
    for value in (1, 2, 3):
        ask(cache, encoder, [value])
    ask(cache, encoder, [1])  # now 2 is the oldest
    ask(cache, encoder, [4])
    assert (len(cache), cache.nbytes) == (3, 3 * BYTES)
    encoder.calls.clear()
    ask(cache, encoder, [3, 1, 4])
    assert encoder.calls == []
    ask(cache, encoder, [2])
    assert encoder.calls == [[2]]


def test_a_request_beyond_the_budget_is_answered_in_full():
    cache, encoder = EmbeddingCache(max_bytes=2 * BYTES), Encoder()
    ask(cache, encoder, [1])
    ask(cache, encoder, [1, 2, 3, 4, 5])  # also the one it held, which is evicted on the way
    assert encoder.calls == [[1], [2, 3, 4, 5]]
    assert (len(cache), cache.nbytes) == (2, 2 * BYTES)
    ask(cache, encoder, [4, 5])
    assert len(encoder.calls) == 2


def test_the_newest_stays_even_if_it_alone_is_too_large():
    cache, encoder = EmbeddingCache(max_bytes=1), Encoder()
    ask(cache, encoder, [1])
    ask(cache, encoder, [1])
    ask(cache, encoder, [2])
    assert encoder.calls == [[1], [2]] and len(cache) == 1


@given(
    st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=12),
    st.integers(1, 5),
)
def test_it_is_an_lru_list_for_any_requests(requests, capacity):
    cache, encoder = EmbeddingCache(max_bytes=capacity * BYTES), Encoder()
    kept: list[int] = []  # oldest first
    hits = encodes = 0
    for request in requests:
        missing = list(dict.fromkeys(v for v in request if v not in kept))
        calls = len(encoder.calls)
        ask(cache, encoder, request)
        assert encoder.calls[calls:] == ([missing] if missing else [])
        hits, encodes = hits + len(request) - len(missing), encodes + len(missing)
        for value in request:
            kept = [v for v in kept if v != value] + [value]
        kept = kept[-capacity:]
        assert (len(cache), cache.nbytes) == (len(kept), len(kept) * BYTES)
        assert counted(cache) == (hits, encodes, encodes)


def test_images_and_hashes_must_pair_up():
    with pytest.raises(ValueError):
        EmbeddingCache().get(Encoder(), [np.zeros((1, 1, 3), np.uint8)], ["a", "b"])


def test_a_failed_encode_leaves_nothing_behind():
    cache, encoder = EmbeddingCache(), Encoder()
    broken = SimpleNamespace(encode=lambda images: [][0])
    with pytest.raises(IndexError):
        ask(cache, broken, [1])
    assert len(cache) == 0
    ask(cache, encoder, [1])
    assert encoder.calls == [[1]]


def test_every_engine_shares_the_cache_of_an_instance():
    first, second = Encoder(), Encoder()
    assert embedding_cache(first) is embedding_cache(first)
    assert embedding_cache(first) is not embedding_cache(second)
    assert embedding_cache(first).max_bytes == DEFAULT_CACHE_BYTES


def test_a_cache_goes_with_its_backbone():
    encoder = Encoder()
    ask(embedding_cache(encoder), encoder, [1])
    cache = weakref.ref(embedding_cache(encoder))
    del encoder
    gc.collect()
    assert cache() is None
