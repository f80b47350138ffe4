"""Encode each distinct image once: an LRU cache of embeddings, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from medseg_gym.backbones.embedding_store import EmbeddingStore
from medseg_gym.backbones.finite import NonFiniteError, embeddings_not_finite
from medseg_gym.backbones.protocol import Backbone, Embedding
from medseg_gym.backbones.spilling import SpillFolder

DEFAULT_CACHE_BYTES = 2 << 30


@dataclass
class CacheCounters:
    """Requests answered from memory, requests that were not, images read from disk, encoded."""

    hits: int = 0
    misses: int = 0
    reads: int = 0
    encodes: int = 0


class EmbeddingCache:
    """Embeddings by content hash, least recently used out first.

    Args:
        max_bytes: Budget; the newest embedding stays even if it alone is larger.
        store: Where embeddings are also kept on disk; None for memory alone.

    Attributes:
        spill: Where embeddings go that memory has no room for, where there is no store; None lets
            them be encoded again.
    """

    def __init__(
        self, max_bytes: int = DEFAULT_CACHE_BYTES, store: EmbeddingStore | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self.store = store
        self.spill: SpillFolder | None = None
        self.counters = CacheCounters()
        self.nbytes = 0
        self._entries: OrderedDict[str, Embedding] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        """Return whether an embedding is held in memory; counts as no use of it."""
        return key in self._entries

    def get(
        self, backbone: Backbone, images: Sequence[np.ndarray], hashes: Sequence[str]
    ) -> list[Embedding]:
        """Embeddings of images, encoding each distinct missing one in a single call.

        Args:
            backbone: The encoder; always the same one for one cache.
            images: Each (H, W, 3) uint8.
            hashes: Content hash of each image.

        Returns:
            One embedding per image, in order.

        Raises:
            NonFiniteError: Embeddings that are not finite, naming the images; none is kept.
        """
        with self._lock:
            missing = {
                key: image
                for key, image in zip(hashes, images, strict=True)
                if key not in self._entries
            }
            self.counters.misses += len(missing)
            self.counters.hits += len(hashes) - len(missing)
            fresh = self._make(backbone, missing) if missing else {}
            if ill := embeddings_not_finite(fresh):
                rows = [i for i, key in enumerate(hashes) if key in ill]
                names = [f"image {hashes[i]}" for i in rows]
                raise NonFiniteError(backbone.name, "embeddings", rows, names)
            # Collected before anything is evicted: one request may exceed the budget.
            embeddings = [fresh[key] if key in fresh else self._entries[key] for key in hashes]
            for key, embedding in zip(hashes, embeddings, strict=True):
                if key not in self._entries:
                    self._entries[key] = embedding
                    self.nbytes += embedding.nbytes
                self._entries.move_to_end(key)
            while self.nbytes > self.max_bytes and len(self._entries) > 1:
                gone, dropped = self._entries.popitem(last=False)
                self.nbytes -= dropped.nbytes
                if self.spill is not None and self.store is None:
                    self.spill.write(gone, dropped)
            return embeddings

    def find(self, hashes: Sequence[str]) -> dict[str, Embedding]:
        """Embeddings held for those content hashes, in memory or on disk; encodes nothing."""
        with self._lock:
            held = {}
            for key in hashes:
                embedding = self._entries.get(key)
                if embedding is not None:
                    self._entries.move_to_end(key)
                    self.counters.hits += 1
                elif self.store is not None and (embedding := self.store.read(key)) is not None:
                    self.counters.reads += 1
                if embedding is not None:
                    held[key] = embedding
            return held

    def _make(self, backbone: Backbone, images: dict[str, np.ndarray]) -> dict[str, Embedding]:
        stored: dict[str, Embedding] = {}
        disk = self.spill if self.store is None else self.store
        if disk is not None:
            read = {key: disk.read(key) for key in images}
            stored = {key: embedding for key, embedding in read.items() if embedding is not None}
            self.counters.reads += len(stored)
        absent = {key: image for key, image in images.items() if key not in stored}
        if absent:
            made = dict(zip(absent, backbone.encode(list(absent.values())), strict=True))
            self.counters.encodes += len(absent)
            if self.store is not None:
                ill = embeddings_not_finite(made)
                for key, embedding in made.items():
                    if key not in ill:
                        self.store.write(key, embedding)
            stored.update(made)
        return stored

    def clear(self) -> None:
        """Drop every embedding and set the counters back to zero."""
        with self._lock:
            self._entries.clear()
            self.nbytes = 0
            self.counters = CacheCounters()


_CACHES: WeakKeyDictionary[Backbone, EmbeddingCache] = WeakKeyDictionary()
_CACHES_LOCK = threading.Lock()


def embedding_cache(backbone: Backbone) -> EmbeddingCache:
    """The one cache that every engine in this process shares for a backbone instance."""
    with _CACHES_LOCK:
        if backbone not in _CACHES:
            _CACHES[backbone] = EmbeddingCache()
        return _CACHES[backbone]
