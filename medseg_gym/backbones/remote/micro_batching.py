"""Micro-batching: requests of many callers done in one call, none at another's expense.

The HTTP service and the Ray actor both serve a backbone this way: one thread owns it, and whatever
waits when the thread becomes free is one batch.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import MissingImages, ServedBackbone
from medseg_gym.backbones.remote.wire import WireRow
from medseg_gym.errors import MedSegError

P = TypeVar("P")

Images = Mapping[str, np.ndarray]
Rows = tuple[Sequence[WireRow], Images]
Work = Callable[[list[Any]], list[Any]]
"""From the payloads of one kind of request to one result each (`Any`: each kind has its own)."""


class QueueFullError(MedSegError):
    """A request does not fit into the queue any more.

    Args:
        queued: Weight of the requests that wait.
        limit: The most that may wait.
    """

    def __init__(self, queued: int, limit: int) -> None:
        self.queued, self.limit = queued, limit
        super().__init__(f"{queued} rows and images wait already, and {limit} is the limit")


class BatcherStoppedError(MedSegError):
    """A request came after the end."""


@dataclass(eq=False)
class Job:
    """One request in the queue.

    Args:
        kind: Key of the `Work` that does it.
        payload: The argument of that work.
        weight: Rows and images, counted against the queue and the batch.
        key: Requests of one key are in different batches, in their order; "" is with any.
        future: Gets the result.
        arrived: `time.monotonic()` on arrival.
    """

    kind: str
    payload: Any
    weight: int
    key: str = ""
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class MicroBatcher:
    """A queue, and a thread of its own that does what waits in it, batch by batch.

    Args:
        work: By kind of request, in the order in which a batch does them.
        max_batch: Weight of a batch; a single request may be heavier.
        max_delay: Seconds that a request waits for others.
        max_queued: Weight that may wait; None for any.
        name: Of the thread.
        on_batch: Told of everything done in one call: its kind, its weight and its seconds.
    """

    def __init__(
        self,
        work: Mapping[str, Work],
        max_batch: int,
        max_delay: float,
        max_queued: int | None = None,
        name: str = "micro-batcher",
        on_batch: Callable[[str, int, float], None] = lambda kind, weight, seconds: None,
    ) -> None:
        self.max_batch, self.max_delay, self.max_queued = max_batch, max_delay, max_queued
        self._work = dict(work)
        self._on_batch = on_batch
        self._queue: deque[Job] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Weight of what waits."""
        return self._queued

    @property
    def alive(self) -> bool:
        """True while it takes requests."""
        return self._thread.is_alive() and not self._stopping

    def submit(
        self, kind: str, payload: Any, weight: int, reserved: bool = False, key: str = ""
    ) -> Future[Any]:
        """Put a request into the queue.

        Args:
            kind: Key of its work.
            payload: The argument of that work.
            weight: Rows and images.
            reserved: It is a piece of a request that `reserve` made room for.
            key: See `Job`.

        Returns:
            The future of its result.

        Raises:
            QueueFullError: The queue is full.
            BatcherStoppedError: `stop` was called; what is reserved is still taken.
        """
        job = Job(kind, payload, weight, key)
        with self._changed:
            if not reserved:
                self._add(weight)
            self._queue.append(job)
            self._changed.notify()
        return job.future

    @contextmanager
    def reserve(self, weight: int) -> Iterator[Iterator[slice]]:
        """Make room for all pieces of a request, and give the pieces: `max_batch` each.

        Raises:
            QueueFullError: The queue is full.
            BatcherStoppedError: `stop` was called.
        """
        with self._changed:
            self._add(weight)
        taken = 0

        def pieces() -> Iterator[slice]:
            nonlocal taken
            for start in range(0, weight, self.max_batch):
                taken = min(start + self.max_batch, weight)
                yield slice(start, taken)

        try:
            yield pieces()
        finally:
            with self._changed:  # of pieces that were not submitted
                self._queued -= weight - taken
                self._changed.notify()

    def stop(self) -> None:
        """Finish what was accepted, refuse the rest, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _add(self, weight: int) -> None:
        if self._stopping:
            raise BatcherStoppedError("requests are not taken any more")
        limit = self.max_queued
        if weight and limit is not None and self._queued + weight > limit:
            raise QueueFullError(self._queued, limit)
        self._queued += weight

    def _collect(self) -> list[Job] | None:
        """Wait for jobs; None once stopping and drained."""
        with self._changed:
            while not self._queue:
                if self._stopping and not self._queued:
                    return None
                self._changed.wait()
            deadline = self._queue[0].arrived + self.max_delay
            while self._queued < self.max_batch and not self._stopping:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch, weight = self._take()
            self._queued -= weight
            return batch

    def _take(self) -> tuple[list[Job], int]:
        """Take the jobs of a batch out of the queue, and their weight."""
        batch: list[Job] = []
        later: list[Job] = []
        weight = 0
        while self._queue and (not batch or weight + self._queue[0].weight <= self.max_batch):
            job = self._queue.popleft()
            if job.key and any(job.key == one.key for one in batch):
                later.append(job)
                continue
            batch.append(job)
            weight += job.weight
        self._queue.extendleft(reversed(later))
        return batch, weight

    def _run(self) -> None:
        while (batch := self._collect()) is not None:
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            for kind in self._work:
                members = [job for job in jobs if job.kind == kind]
                try:
                    self._do(kind, members)
                except Exception as error:  # a fault of this class: nobody waits for ever
                    for job in members:
                        if not job.future.done():
                            job.future.set_exception(error)

    def _do(self, kind: str, jobs: list[Job]) -> None:
        if not jobs:
            return
        began = time.perf_counter()
        results = together(self._work[kind], [job.payload for job in jobs])
        self._on_batch(kind, sum(job.weight for job in jobs), time.perf_counter() - began)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)


def together(work: Callable[[list[P]], list[Any]], payloads: list[P]) -> list[Any]:
    """Do payloads in one call; if that fails, one by one, so that only a culprit fails.

    Args:
        work: From payloads to results, one each; a result may be an exception.
        payloads: Arguments of the requests.

    Returns:
        One result, or the exception that stands in its place, per payload.
    """
    if not payloads:
        return []
    try:
        return work(payloads)
    except Exception as error:
        if len(payloads) == 1:
            return [error]
        return [together(work, [payload])[0] for payload in payloads]


def encode_together(served: ServedBackbone, requests: list[Images]) -> list[Any]:
    """Encode the images of all requests in one call, each distinct one once."""
    union = {key: image for images in requests for key, image in images.items()}
    sizes = served.encode(union)
    return [{key: sizes[key] for key in images} for images in requests]


def decode_together(served: ServedBackbone, requests: list[Rows], max_rows: int) -> list[Any]:
    """Decode the rows of all requests together; a request with missing images stays out.

    Args:
        served: The backbone.
        requests: Rows and images of each.
        max_rows: Of one call.

    Returns:
        Logits (B, h, w) and predicted IoU (B,) of each, or the `MissingImages` in their place.
    """
    results: list[Any] = []
    rows: list[WireRow] = []
    images: dict[str, np.ndarray] = {}
    for wanted, given in requests:
        keys = sorted({row.image for row in wanted} - set(given))
        missing = sorted(set(keys) - set(served.known(keys)))
        if missing:
            results.append(MissingImages(missing))
            continue
        results.append(slice(len(rows), len(rows) + len(wanted)))
        rows += wanted
        images |= given
    if not rows:
        return results
    decoded = []
    for start in range(0, len(rows), max_rows):
        batch = rows[start : start + max_rows]
        pixels = {row.image: images[row.image] for row in batch if row.image in images}
        try:
            decoded.append(served.decode(batch, pixels))
        except NonFiniteError as error:
            raise error.starting_at(start) from None
    logits, iou = (np.concatenate(arrays) for arrays in zip(*decoded, strict=True))
    return [r if isinstance(r, Exception) else (logits[r], iou[r]) for r in results]
