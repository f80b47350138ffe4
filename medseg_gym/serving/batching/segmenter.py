"""The micro-batcher: one thread owns the backbone and serves everybody's requests together.

Whatever waits when the thread becomes free goes into one batch: images are encoded in one call
(each distinct one once), the steps of all sessions are one `EpisodeEngine.step`, hence one decoder
call, and all stateless rows another. Callers wait in asyncio; the event loop never computes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from medseg_gym.backbones import Backbone
from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.backbones.remote.micro_batching import (
    BatcherStoppedError,
    MicroBatcher,
    QueueFullError,
    decode_together,
    encode_together,
)
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import Case
from medseg_gym.episodes import DecodeOptions, Episode, EpisodeEngine, StepResult
from medseg_gym.prompts import Prompt
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics


class Segmenter:
    """Runs sessions and stateless rows of all clients over one backbone, in its own thread.

    Args:
        backbone: Who segments.
        limits: See there: batch, delay, queue, sessions and steps.
        options: How prompts of a session become decoder rows; the suite's defaults if None.
        metrics: What is counted.
        reward: Name for `rewards.make`; what steps of games are worth.

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
        self.metrics.watch_cache(self.served.cache)
        self._batcher = MicroBatcher(
            {
                "start": self._start,
                "known": lambda requests: [self.served.known(keys) for keys in requests],
                "encode": lambda requests: encode_together(self.served, requests),
                "step": self._step,
                "decode": lambda requests: decode_together(
                    self.served, requests, self.limits.max_batch
                ),
                "end": self._end,
            },
            self.limits.max_batch,
            self.limits.max_delay_ms / 1000,
            self.limits.queue_rows,
            "segmenter",
            self._count,
        )
        self.metrics.queue.set_function(lambda: self._batcher.queued)

    @property
    def facts(self) -> ServedFacts:
        """Facts of the backbone that a client has to know."""
        return self.served.facts

    @property
    def alive(self) -> bool:
        """True while it takes requests."""
        return self._batcher.alive

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

    def _give_slot_back(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.end(future.result()[0])

    async def step(
        self, slot: int, prompt: Prompt, options: DecodeOptions | None = None
    ) -> StepResult:
        """Take one step in a session's episode."""
        return await asyncio.wrap_future(self._submit("step", (slot, prompt, options), 1))

    def end(self, slot: int) -> None:
        """Drop the episode in a slot, after everything that was asked of it before."""
        with suppress(BatcherStoppedError):  # every episode goes with the process
            self._batcher.submit("end", slot, 0)

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash, a part at a time as `decode`; the `input_size` of each."""
        sizes: dict[str, tuple[int, int]] = {}
        keys = list(images)
        with self._reserve(len(keys)) as pieces:
            for piece in pieces:
                wanted = {key: images[key] for key in keys[piece]}
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
        with self._reserve(len(rows)) as pieces:
            for piece in pieces:
                given = {r.image: images[r.image] for r in rows[piece] if r.image in images}
                job = self._submit("decode", (rows[piece], given), len(rows[piece]), True)
                try:
                    made.append(await asyncio.wrap_future(job))
                except NonFiniteError as error:
                    raise error.starting_at(piece.start) from None
        logits, iou = zip(*made, strict=True)
        return (
            (logits[0], iou[0]) if len(made) == 1 else (np.concatenate(logits), np.concatenate(iou))
        )

    @contextmanager
    def _reserve(self, weight: int) -> Iterator[Iterator[slice]]:
        """Places in the queue for all pieces of a request, and the pieces."""
        with self._refusals(), self._batcher.reserve(weight) as pieces:
            yield pieces

    def decode_now(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`decode` for another thread of this process, which waits."""
        future: Future[tuple[np.ndarray, np.ndarray]] = self._submit(
            "decode", (rows, images), len(rows) + len(images)
        )
        return future.result()

    def encode_now(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """`encode` for another thread of this process, which waits."""
        future: Future[dict[str, tuple[int, int]]] = self._submit("encode", images, len(images))
        return future.result()

    def stop(self) -> None:
        """Finish what was accepted, refuse the rest, end the thread."""
        self._batcher.stop()

    # the queue ---------------------------------------------------------------------------------
    def _submit(self, kind: str, payload: Any, weight: int, reserved: bool = False) -> Future[Any]:
        with self._refusals():
            return self._batcher.submit(kind, payload, weight, reserved)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what the queue refuses into answers of the service."""
        try:
            yield
        except QueueFullError as error:
            self.metrics.refused.labels("queue").inc()
            raise ServiceError(
                f"{error.queued} rows and images wait for the segmenter already, and "
                f"{error.limit} is the limit; try again shortly",
                503,
                retry_after=1,
            ) from None
        except BatcherStoppedError:
            raise ServiceError("the service is shutting down", 503, retry_after=5) from None

    def _count(self, kind: str, weight: int, seconds: float) -> None:
        self.metrics.batch_rows.labels(kind).observe(weight)
        self.metrics.batch_seconds.labels(kind).observe(seconds)

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
