"""The bounded queue before the segmenter, from which whole batches are taken."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics

Kind = Literal["start", "known", "encode", "step", "decode", "end"]


@dataclass(eq=False)
class Job:
    """One request to the segmenter.

    Args:
        kind: Which stage of a batch does it.
        payload: Argument of that stage.
        weight: Rows and images, counted against the queue and the batch.
        future: Gets the result. Its type depends on the kind.
        arrived: `time.monotonic()` on arrival.
    """

    kind: Kind
    payload: Any
    weight: int
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class JobQueue:
    """Jobs that wait; callers add them from any thread, one thread collects them.

    Args:
        limits: `queue_rows`, `max_batch` and `max_delay_ms`.
        metrics: Count jobs that are refused because the queue is full.
    """

    def __init__(self, limits: Limits, metrics: ServiceMetrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.stopping = False
        self.weight = 0  # of what waits, and of reserved places
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()

    def submit(self, kind: Kind, payload: Any, weight: int, reserved: bool = False) -> Future[Any]:
        """Add a job and return the future of its result.

        Args:
            kind: Which stage of a batch does it.
            payload: Argument of that stage.
            weight: Rows and images.
            reserved: `reserve` has counted its weight already.

        Raises:
            ServiceError: 503, the queue is full or stopping.
        """
        job = Job(kind, payload, weight)
        with self._changed:
            if self.stopping and not reserved:  # the rest of what was accepted is still done
                if kind == "end":  # every episode goes with the process
                    return job.future
                raise _shutting_down()
            if not reserved:
                self._require_room(weight)
                self.weight += weight
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @contextmanager
    def reserve(self, weight: int) -> Iterator[Iterator[slice]]:
        """Reserve room for all jobs of one request.

        Args:
            weight: Rows or images of the request.

        Yields:
            Slices of the request, of `max_batch` each, that are to be submitted as `reserved`.

        Raises:
            ServiceError: 503, the queue is full or stopping.
        """
        with self._changed:
            if self.stopping:
                raise _shutting_down()
            self._require_room(weight)
            self.weight += weight
        taken = 0

        def slices() -> Iterator[slice]:
            nonlocal taken
            for start in range(0, weight, self.limits.max_batch):
                taken = min(start + self.limits.max_batch, weight)
                yield slice(start, taken)

        try:
            yield slices()
        finally:
            with self._changed:  # of slices that were not submitted
                self.weight -= weight - taken
                self._changed.notify()

    def _require_room(self, weight: int) -> None:
        if weight and self.weight + weight > self.limits.queue_rows:
            self.metrics.refused.labels("queue").inc()
            raise ServiceError(
                f"{self.weight} rows and images wait for the segmenter already, and "
                f"{self.limits.queue_rows} is the limit; try again shortly",
                503,
                retry_after=1,
            )

    def collect(self) -> list[Job] | None:
        """Wait for jobs and return a batch of them; None once stopping and drained."""
        with self._changed:
            while not self._jobs:
                if self.stopping and not self.weight:
                    return None
                self._changed.wait()
            deadline = self._jobs[0].arrived + self.limits.max_delay_ms / 1000
            while self.weight < self.limits.max_batch and not self.stopping:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = [self._jobs.popleft()]
            weight = batch[0].weight
            while self._jobs and weight + self._jobs[0].weight <= self.limits.max_batch:
                batch.append(self._jobs.popleft())
                weight += batch[-1].weight
            self.weight -= weight
            return batch

    def stop(self) -> None:
        """Refuse further jobs; those that were accepted can still be collected."""
        with self._changed:
            self.stopping = True
            self._changed.notify()


def _shutting_down() -> ServiceError:
    return ServiceError("the service is shutting down", 503, retry_after=5)
