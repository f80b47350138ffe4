"""The micro-batcher: one thread owns the backbone and serves everybody's requests together.

Whatever waits when the thread becomes free goes into one batch: images are encoded in one call
(each distinct one once), the steps of all sessions are one `EpisodeEngine.step`, hence one decoder
call, and all stateless rows another. Callers wait in asyncio; the event loop never computes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from medseg_gym.backbones import Backbone
from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import Case
from medseg_gym.episodes import DecodeOptions, Episode, EpisodeEngine, StepResult
from medseg_gym.prompts import Prompt
from medseg_gym.serving.batching.micro_batching import decode_together, encode_together, together
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.limits import Limits
from medseg_gym.serving.middleware.metrics import ServiceMetrics


def _shutting_down() -> ServiceError:
    return ServiceError("the service is shutting down", 503, retry_after=5)


Kind = Literal["start", "known", "encode", "step", "decode", "end"]
_ORDER: tuple[Kind, ...] = ("start", "known", "encode", "step", "decode", "end")


@dataclass(eq=False)
class Job:
    """One request to the segmenter.

    Args:
        kind: Which part of a batch does it.
        payload: What that part takes.
        weight: Rows and images, counted against the queue and the batch.
        future: Gets the result.
        arrived: `time.monotonic()` on arrival.
    """

    kind: Kind
    payload: Any
    weight: int
    future: Future = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Segmenter:
    """Runs sessions and stateless rows of all clients over one backbone, in its own thread.

    Args:
        backbone: Who segments.
        limits: See there: batch, delay, queue, sessions and steps.
        options: How prompts of a session become decoder rows; the suite's defaults if None.
        meters: What is counted.
        reward: Name for `rewards.make`; what steps of games are worth.

    Raises:
        BackboneError: The backbone cannot be served, see `ServedBackbone`.
    """

    def __init__(
        self,
        backbone: Backbone,
        limits: Limits | None = None,
        options: DecodeOptions | None = None,
        meters: ServiceMetrics | None = None,
        reward: str = "dice_gain",
    ) -> None:
        self.limits = limits or Limits()
        self.meters = meters or ServiceMetrics()
        self.served = ServedBackbone(backbone)
        self.engine = EpisodeEngine(
            backbone,
            self.limits.max_sessions,
            reward,
            max_steps=self.limits.max_steps,
            options=options,
            own_memory=True,
        )
        self._free_slots = list(range(self.limits.max_sessions))
        self._queue: deque[Job] = deque()
        self._queued = 0  # weight of what waits
        self._work: dict[Kind, Callable[[list[Any]], list[Any]]] = {
            "start": self._start,
            "known": lambda requests: [self.served.known(keys) for keys in requests],
            "encode": lambda requests: encode_together(self.served, requests),
            "step": self._step,
            "decode": lambda requests: decode_together(
                self.served, requests, self.limits.max_batch
            ),
            "end": self._end,
        }
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="segmenter", daemon=True)
        self.meters.queue.set_function(lambda: self._queued)
        self.meters.watch_cache(self.served.cache)
        self._thread.start()

    @property
    def facts(self) -> ServedFacts:
        """What a client has to know of the backbone."""
        return self.served.facts

    @property
    def alive(self) -> bool:
        """True while it takes requests."""
        return self._thread.is_alive() and not self._stopping

    # what callers use -------------------------------------------------------------------------
    async def start(self, case: Case, max_steps: int | None = None) -> tuple[int, Episode]:
        """Begin an episode; its slot and the episode.

        A caller that goes away meanwhile leaves no slot behind.

        Args:
            case: What is segmented.
            max_steps: Actions it may take; None takes the service's limit.
        """
        future = self._submit("start", (case, max_steps), 1)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_slot_back)
            raise

    def _give_slot_back(self, future: Future) -> None:
        if not future.cancelled() and future.exception() is None:
            self.end(future.result()[0])

    async def step(
        self, slot: int, prompt: Prompt, options: DecodeOptions | None = None
    ) -> StepResult:
        """Take one step in a session's episode."""
        return await asyncio.wrap_future(self._submit("step", (slot, prompt, options), 1))

    def end(self, slot: int) -> None:
        """Drop the episode in a slot, after everything that was asked of it before."""
        self._submit("end", slot, 0)

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash, a part at a time as `decode`; the `input_size` of each."""
        sizes: dict[str, tuple[int, int]] = {}
        keys = list(images)
        with self._reserve(len(keys)) as parts:
            for part in parts:
                wanted = {key: images[key] for key in keys[part]}
                sizes |= await asyncio.wrap_future(
                    self._submit("encode", wanted, len(wanted), True)
                )
        return sizes

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The `input_size` of those images that are held."""
        return await asyncio.wrap_future(self._submit("known", keys, 0))

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, h, w) and predicted IoU (B,) of stateless rows; see `ServedBackbone`.

        A batch at a time: each part waits behind what others asked meanwhile, so that a request of
        many rows does not hold up one of a single row.
        """
        made = []
        with self._reserve(len(rows)) as parts:
            for part in parts:
                given = {r.image: images[r.image] for r in rows[part] if r.image in images}
                job = self._submit("decode", (rows[part], given), len(rows[part]), True)
                made.append(await asyncio.wrap_future(job))
        logits, iou = zip(*made, strict=True)
        return (
            (logits[0], iou[0]) if len(made) == 1 else (np.concatenate(logits), np.concatenate(iou))
        )

    @contextmanager
    def _reserve(self, weight: int) -> Iterator[Iterator[slice]]:
        """Places in the queue for all parts of a request, and the parts: `max_batch` each."""
        with self._changed:
            if self._stopping:
                raise _shutting_down()
            self._require_room(weight)
            self._queued += weight
        taken = 0

        def parts() -> Iterator[slice]:
            nonlocal taken
            for start in range(0, weight, self.limits.max_batch):
                taken = min(start + self.limits.max_batch, weight)
                yield slice(start, taken)

        try:
            yield parts()
        finally:
            with self._changed:  # of parts that were not submitted
                self._queued -= weight - taken
                self._changed.notify()

    def decode_now(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`decode` for another thread of this process, which waits."""
        return self._submit("decode", (rows, images), len(rows) + len(images)).result()

    def encode_now(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """`encode` for another thread of this process, which waits."""
        return self._submit("encode", images, len(images)).result()

    def stop(self) -> None:
        """Finish what was accepted, refuse the rest, end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    # the queue ---------------------------------------------------------------------------------
    def _submit(self, kind: Kind, payload: Any, weight: int, reserved: bool = False) -> Future:
        job = Job(kind, payload, weight)
        with self._changed:
            if self._stopping and not reserved:  # the rest of what was accepted is still done
                if kind == "end":  # every episode goes with the process
                    return job.future
                raise _shutting_down()
            if not reserved:
                self._require_room(weight)
                self._queued += weight
            self._queue.append(job)
            self._changed.notify()
        return job.future

    def _require_room(self, weight: int) -> None:
        if weight and self._queued + weight > self.limits.queue_rows:
            self.meters.refused.labels("queue").inc()
            raise ServiceError(
                f"{self._queued} rows and images wait for the segmenter already, and "
                f"{self.limits.queue_rows} is the limit; try again shortly",
                503,
                retry_after=1,
            )

    def _collect(self) -> list[Job] | None:
        """Wait for jobs; None once stopping and drained."""
        with self._changed:
            while not self._queue:
                if self._stopping and not self._queued:
                    return None
                self._changed.wait()
            deadline = self._queue[0].arrived + self.limits.max_delay_ms / 1000
            while self._queued < self.limits.max_batch and not self._stopping:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = [self._queue.popleft()]
            weight = batch[0].weight
            while self._queue and weight + self._queue[0].weight <= self.limits.max_batch:
                batch.append(self._queue.popleft())
                weight += batch[-1].weight
            self._queued -= weight
            return batch

    def _run(self) -> None:
        while (batch := self._collect()) is not None:
            jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
            for kind in _ORDER:
                members = [job for job in jobs if job.kind == kind]
                try:
                    self._do(kind, members)
                except Exception as error:  # a fault of this class: nobody waits for ever
                    for job in members:
                        if not job.future.done():
                            job.future.set_exception(error)

    def _do(self, kind: Kind, jobs: list[Job]) -> None:
        if not jobs:
            return
        began = time.perf_counter()
        results = together(self._work[kind], [job.payload for job in jobs])
        self.meters.batch_rows.labels(kind).observe(sum(job.weight for job in jobs))
        self.meters.batch_seconds.labels(kind).observe(time.perf_counter() - began)
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    # the work ----------------------------------------------------------------------------------
    def _start(self, wanted: list[tuple[Case, int | None]]) -> list[Any]:
        if len(wanted) > len(self._free_slots):
            raise ServiceError("every session slot is taken; try again", 503, retry_after=5)
        slots = [self._free_slots.pop() for _ in wanted]
        cases, limits = zip(*wanted, strict=True)
        try:
            return list(zip(slots, self.engine.reset(slots, cases, limits), strict=True))
        except Exception:
            self._free_slots += slots
            raise

    def _step(self, steps: list[tuple[int, Prompt, DecodeOptions | None]]) -> list[Any]:
        slots, prompts, options = (list(part) for part in zip(*steps, strict=True))
        return self.engine.step(slots, prompts, options)

    def _end(self, slots: list[int]) -> list[Any]:
        for slot in slots:
            self.engine.episodes[slot] = None
            self._free_slots.append(slot)
        return [None] * len(slots)
