"""Metrics of the service for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from medseg_gym.backbones import EmbeddingCache

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class ServiceMetrics:
    """Counters, gauges and histograms of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        here = self.registry
        self.requests = Counter(
            "medseg_requests", "Requests answered", ["method", "route", "status"], registry=here
        )
        self.request_seconds = Histogram(
            "medseg_request_seconds", "Time to answer", ["route"], buckets=_SECONDS, registry=here
        )
        self.in_flight = Gauge("medseg_requests_in_flight", "Requests in progress", registry=here)
        self.refused = Counter(
            "medseg_refused", "Requests refused by a limit (429, 503)", ["limit"], registry=here
        )
        self.queue = Gauge("medseg_queue_rows", "Rows and images waiting", registry=here)
        self.batch_rows = Histogram(
            "medseg_batch_rows", "Rows of one call to the segmenter", ["kind"], buckets=_ROWS,
            registry=here,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "medseg_batch_seconds", "Time of one call", ["kind"], buckets=_SECONDS, registry=here
        )
        self.sessions = Gauge("medseg_sessions", "Open sessions", registry=here)
        self.session_bytes = Gauge("medseg_session_bytes", "Bytes held by sessions", registry=here)
        self.sessions_closed = Counter(
            "medseg_sessions_closed", "Sessions closed", ["reason"], registry=here
        )

    def watch_cache(self, cache: EmbeddingCache) -> None:
        """Add the counters of an embedding cache, read whenever metrics are asked for."""
        self.registry.register(_CacheCollector(cache))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _CacheCollector:
    def __init__(self, cache: EmbeddingCache) -> None:
        self.cache = cache

    def collect(self) -> list[Metric]:
        """Return one metric family per counter of the cache."""
        counters = self.cache.counters
        families: list[Metric] = [
            CounterMetricFamily("medseg_cache_hits", "Embeddings found", counters.hits),
            CounterMetricFamily("medseg_encodes", "Images encoded", counters.encodes),
        ]
        for name, text, value in (
            ("medseg_cache_images", "Embeddings held", len(self.cache)),
            ("medseg_cache_bytes", "Bytes of embeddings held", self.cache.nbytes),
        ):
            families.append(GaugeMetricFamily(name, text, value))
        return families
