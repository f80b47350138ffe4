"""The micro-batcher: one thread owns the backbone and serves the requests of all clients.

Whatever waits when the thread becomes free goes into one batch: images are encoded in one call
(each distinct one once), the steps of all sessions are one `EpisodeEngine.step`, hence one decoder
call, and all stateless rows another. Callers wait in asyncio; the event loop never computes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from medseg_gym.backbones import Backbone
from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import Case
from medseg_gym.episodes import DecodeOptions, Episode, EpisodeEngine, StepResult
from medseg_gym.prompts import Prompt
from medseg_gym.serving.batching.job_queue import Job, JobQueue, Kind
from medseg_gym.serving.batching.micro_batching import decode_together, encode_together, together
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics

_ORDER: tuple[Kind, ...] = ("start", "known", "encode", "step", "decode", "end")


class Segmenter:
    """Runs sessions and stateless rows of all clients over one backbone, in its own thread.

    Args:
        backbone: Predicts the masks.
        limits: Of them batch, delay, queue, sessions and steps.
        options: How prompts of a session become decoder rows; the suite's defaults if None.
        metrics: Counts batches, refusals and the embedding cache.
        reward: Name for `rewards.make`; reward of the steps of games.

    Raises:
        BackboneError: The backbone cannot be served, see `ServedBackbone`.
    """

    def __init__(
        self,
        backbone: Backbone,
        limits: Limits | None = None,
        options: DecodeOptions | None = None,
        metrics: ServiceMetrics | None = None,
        reward: str = "dice_gain",
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = metrics or ServiceMetrics()
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
        self._queue = JobQueue(self.limits, self.metrics)
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
        self._thread = threading.Thread(target=self._run, name="segmenter", daemon=True)
        self.metrics.queue.set_function(lambda: self._queue.weight)
        self.metrics.watch_cache(self.served.cache)
        self._thread.start()

    @property
    def facts(self) -> ServedFacts:
        """Properties of the backbone that a client has to know."""
        return self.served.facts

    @property
    def alive(self) -> bool:
        """True while it takes requests."""
        return self._thread.is_alive() and not self._queue.stopping

    # for callers ------------------------------------------------------------------------------
    async def start(self, case: Case, max_steps: int | None = None) -> tuple[int, Episode]:
        """Begin an episode; return its slot and the episode.

        A caller that goes away meanwhile leaves no slot behind.

        Args:
            case: Image to segment.
            max_steps: Actions it may take; None takes the service's limit.
        """
        future = self._queue.submit("start", (case, max_steps), 1)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._give_slot_back)
            raise

    def _give_slot_back(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.end(future.result()[0])

    async def step(
        self, slot: int, prompt: Prompt, options: DecodeOptions | None = None
    ) -> StepResult:
        """Take one step in a session's episode."""
        return await asyncio.wrap_future(self._queue.submit("step", (slot, prompt, options), 1))

    def end(self, slot: int) -> None:
        """Drop the episode in a slot, after everything that was asked of it before."""
        self._queue.submit("end", slot, 0)

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash, a batch at a time; return the `input_size` of each."""
        sizes: dict[str, tuple[int, int]] = {}
        keys = list(images)
        with self._queue.reserve(len(keys)) as slices:
            for batch in slices:
                wanted = {key: images[key] for key in keys[batch]}
                sizes |= await asyncio.wrap_future(
                    self._queue.submit("encode", wanted, len(wanted), True)
                )
        return sizes

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the `input_size` of those images that are held."""
        return await asyncio.wrap_future(self._queue.submit("known", keys, 0))

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (B, h, w) and predicted IoU (B,) of stateless rows; see `ServedBackbone`.

        A batch at a time: each waits behind what others asked meanwhile, so that a request of many
        rows does not hold up one of a single row.
        """
        decoded = []
        with self._queue.reserve(len(rows)) as slices:
            for batch in slices:
                given = {r.image: images[r.image] for r in rows[batch] if r.image in images}
                job = self._queue.submit("decode", (rows[batch], given), len(rows[batch]), True)
                decoded.append(await asyncio.wrap_future(job))
        logits, iou = zip(*decoded, strict=True)
        if len(decoded) == 1:
            return logits[0], iou[0]
        return np.concatenate(logits), np.concatenate(iou)

    def decode_now(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`decode` for another thread of this process, which waits."""
        future = self._queue.submit("decode", (rows, images), len(rows) + len(images))
        decoded: tuple[np.ndarray, np.ndarray] = future.result()
        return decoded

    def encode_now(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """`encode` for another thread of this process, which waits."""
        sizes: dict[str, tuple[int, int]] = self._queue.submit(
            "encode", images, len(images)
        ).result()
        return sizes

    def stop(self) -> None:
        """Finish what was accepted, refuse the rest, end the thread."""
        self._queue.stop()
        self._thread.join()

    # the thread -------------------------------------------------------------------------------
    def _run(self) -> None:
        while (batch := self._queue.collect()) is not None:
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
        self.metrics.batch_rows.labels(kind).observe(sum(job.weight for job in jobs))
        self.metrics.batch_seconds.labels(kind).observe(time.perf_counter() - began)
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
        slots, prompts, options = (list(column) for column in zip(*steps, strict=True))
        return self.engine.step(slots, prompts, options)

    def _end(self, slots: list[int]) -> list[Any]:
        for slot in slots:
            self.engine.episodes[slot] = None
            self._free_slots.append(slot)
        return [None] * len(slots)
