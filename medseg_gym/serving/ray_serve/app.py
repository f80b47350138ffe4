"""The stateless routes as a Ray Serve application: replicas, autoscaling, Serve's batching.

A replica holds a backbone and its embedding cache. A request that lands on a replica without its
image is answered with the hashes that are missing, and the `http:` backbone sends their pixels
along: any replica can serve any request. Sessions stay with `medseg serve` on one machine.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from medseg_gym import backbones
from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.backbones.remote.micro_batching import decode_together, encode_together, together
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.episodes import DecodeOptions
from medseg_gym.serving.app import base_app
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics
from medseg_gym.serving.middleware.api_keys import ApiKeys, read_keys
from medseg_gym.serving.middleware.requests import RequestMiddleware
from medseg_gym.serving.routes.stateless import stateless_router
from medseg_gym.serving.routes.status import root_router, status_router


class RayArguments(BaseModel):
    """The field `args:` of a Serve configuration file."""

    model_config = ConfigDict(extra="forbid")

    backbone: str = Field("pocket", description="As in `medseg backbones list`.")
    checkpoint: str | None = Field(None, description="Weight file, on every node.")
    device: str = Field("auto", description="auto, cpu, cuda.")
    backbone_options: dict[str, Any] = Field({}, description="See `backbones.load`.")
    keys_file: str | None = Field(None, description="owner:key lines, on every node.")
    keys: dict[str, str] = Field({}, description="Key by owner; a file is safer.")
    limits: dict[str, Any] = Field({}, description="See `medseg_gym.serving.Limits`.")
    local_only: bool = Field(False, description="Refuse foreign Host and Origin headers.")


def application(args: RayArguments) -> serve.Application:
    """Make the Serve application; `import_path: medseg_gym.serving.ray_serve.app:application`.

    Replicas, autoscaling and resources are those of the deployment "Segmenter" in Serve's
    configuration, or the defaults of Ray.
    """
    return deployment(args).bind()


def deployment(args: RayArguments, **options: Any) -> serve.Deployment:
    """Make the deployment "Segmenter", not yet bound.

    Args:
        args: Backbone, keys and limits of every replica.
        **options: Arguments of `ray.serve.deployment`: num_replicas, autoscaling_config, ...
    """
    plain = args.model_dump()
    limits = Limits(**args.limits)  # a misspelt limit fails here, not in every replica

    def build() -> RequestMiddleware:
        return build_replica(RayArguments(**plain))

    settings = {
        "name": "Segmenter",
        "max_ongoing_requests": 2 * limits.max_batch,
        "max_queued_requests": limits.max_requests,
        "graceful_shutdown_timeout_s": limits.drain_seconds,
    }
    return serve.deployment(**{**settings, **options})(serve.ingress(build)(Replica))


class Replica:
    """One replica; `build_replica` makes its application in its process."""


def build_replica(args: RayArguments) -> RequestMiddleware:
    """Load the backbone in this process and put the stateless routes before it."""
    limits = Limits(**args.limits)
    keys = {**(read_keys(Path(args.keys_file)) if args.keys_file else {}), **args.keys}
    served = ServedBackbone(
        backbones.load(args.backbone, args.checkpoint, args.device, **args.backbone_options)
    )
    metrics = ServiceMetrics()
    metrics.watch_cache(served.cache)
    app = base_app(None)
    app.include_router(
        stateless_router(BatchedRows(served, limits, metrics), limits, DecodeOptions())
    )
    app.include_router(status_router(served, metrics, lambda: True, lambda: 0))
    app.include_router(root_router(served))
    return RequestMiddleware(app, ApiKeys(keys), limits, metrics, args.local_only)


class BatchedRows:
    """A `RowDecoder` whose requests Ray Serve collects into batches.

    Args:
        served: The backbone; it computes in a thread of its own, never in the event loop.
        limits: `max_batch` and `max_delay_ms`.
        metrics: Count the rows of batches.
    """

    def __init__(self, served: ServedBackbone, limits: Limits, metrics: ServiceMetrics) -> None:
        self.served = served
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segmenter")
        self._metrics = metrics
        collect: Any = serve.batch(
            max_batch_size=limits.max_batch, batch_wait_timeout_s=limits.max_delay_ms / 1000
        )
        self._encode = collect(self._batched("encode", functools.partial(encode_together, served)))
        decode = functools.partial(decode_together, served, max_rows=limits.max_batch)
        self._decode = collect(self._batched("decode", decode))

    def _batched(
        self, kind: str, work: Callable[[list[Any]], list[Any]]
    ) -> Callable[[list[Any]], Awaitable[list[Any]]]:
        async def run(requests: list[Any]) -> list[Any]:
            self._metrics.batch_rows.labels(kind).observe(len(requests))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, together, work, requests)

        return run

    @property
    def facts(self) -> ServedFacts:
        """Properties of the backbone."""
        return self.served.facts

    async def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode images by content hash; return the `input_size` of each."""
        sizes: dict[str, tuple[int, int]] = _result(await self._encode(images))
        return sizes

    async def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the `input_size` of those images that this replica holds."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self.served.known, keys)

    async def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return logits (B, h, w) and predicted IoU (B,)."""
        decoded: tuple[np.ndarray, np.ndarray] = _result(await self._decode((rows, images)))
        return decoded


def _result(result: Any) -> Any:  # Serve's batching is untyped
    if isinstance(result, Exception):
        raise result
    return result
