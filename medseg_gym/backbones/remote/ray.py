"""One backbone for all rollout workers of a Ray job: a named actor, reached as "ray:NAME".

The actor gathers the rows of all callers into one decode. Its queue is bounded: callers wait when
it is full. Nothing but images, prompts and logits crosses the wire, and every call may be repeated,
so that Ray may restart the actor: it then asks for the images again.
"""

from __future__ import annotations

from asyncio import wrap_future
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.protocol import Backbone
from medseg_gym.backbones.registry import load
from medseg_gym.backbones.remote.ends import MissingImages, RemoteBackbone, ServedBackbone
from medseg_gym.backbones.remote.micro_batching import (
    MicroBatcher,
    Rows,
    decode_together,
    encode_together,
)
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.errors import BackboneError
from medseg_gym.object_paths import absolute_files


def serve(
    name: str,
    backbone: str = "pocket",
    checkpoint: str | None = None,
    device: str = "auto",
    *,
    max_rows: int = 64,
    max_waiting: int = 256,
    max_delay: float = 0.002,
    num_cpus: float = 1,
    num_gpus: float = 0,
    max_restarts: int = 3,
    **options: Any,
) -> Any:
    """Start the actor that `backbones.load("ray:NAME")` talks to.

    Args:
        name: Of the actor, within the job's namespace.
        backbone: Name for `backbones.load`, as are `checkpoint`, `device` and `options`.
        checkpoint: See there.
        device: See there.
        max_rows: The most rows of one decode.
        max_waiting: Calls that may wait; more of them wait on the caller's side.
        max_delay: Seconds that a decode waits for more rows.
        num_cpus: Of the actor.
        num_gpus: Of the actor.
        max_restarts: How often Ray restarts it when it dies; calls under way are tried again.
        **options: See `backbones.load`.

    Returns:
        The actor's handle. The actor lives as long as somebody holds it.

    Raises:
        BackboneError: There is one of that name already, or the backbone cannot be loaded.
    """
    actor: Any = ray.remote(_Server).options(
        name=name,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        max_restarts=max_restarts,
        max_task_retries=max_restarts,
        max_concurrency=max_waiting,
    )
    try:
        handle = actor.remote(
            absolute_files(backbone), checkpoint, device, max_rows, max_delay, options
        )
        ray.get(handle.facts.remote())
    except ValueError as error:
        raise BackboneError(f"ray:{name}: {error}; give another name, or stop that one") from None
    except ray.exceptions.RayError as error:
        raise BackboneError(f"ray:{name}: {backbone!r} cannot be served: {error}") from error
    return handle


class _Server:
    """The actor. Its methods are coroutines of one thread; the batcher's thread runs the model."""

    def __init__(
        self,
        backbone: str,
        checkpoint: str | None,
        device: str,
        max_rows: int,
        max_delay: float,
        options: dict[str, Any],
    ) -> None:
        self._served = ServedBackbone(load(backbone, checkpoint, device, **options))
        self._counts = {"decodes": 0, "rows": 0, "calls": 0}
        self._batcher = MicroBatcher(
            {
                "encode": lambda requests: encode_together(self._served, requests),
                "decode": self._decode_together,
            },
            max_rows,
            max_delay,
        )

    async def facts(self) -> ServedFacts:
        """Return what clients must know of the backbone."""
        return self._served.facts

    async def device(self) -> str:
        """Return the device that the backbone is on."""
        return str(self._served.backbone.device)

    async def counts(self) -> dict[str, int]:
        """Decodes made, rows in them, calls they came from, images encoded, since the start."""
        return {**self._counts, "encodes": self._served.cache.counters.encodes}

    async def encode(self, images: dict[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """See `ServedBackbone.encode`."""
        return await wrap_future(self._batcher.submit("encode", images, len(images)))

    async def decode(
        self, rows: Sequence[WireRow], images: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `ServedBackbone.decode`; rows of several calls share one."""
        return await wrap_future(self._batcher.submit("decode", (rows, images), len(rows)))

    def _decode_together(self, requests: list[Rows]) -> list[Any]:
        results = decode_together(self._served, requests, self._batcher.max_batch)
        decoded = [result for result in results if not isinstance(result, Exception)]
        self._counts["decodes"] += bool(decoded)
        self._counts["rows"] += sum(len(logits) for logits, _ in decoded)
        self._counts["calls"] += len(decoded)
        return results


class RayBackbone(RemoteBackbone):
    """A backbone in an actor of the same Ray job, from `backbones.load("ray:NAME")`.

    Args:
        name: Of the actor.
        device: Where masks live here.
        timeout: Seconds that one call may take, a restart of the actor included.

    Raises:
        BackboneError: Ray is not running here, or there is no such actor.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", timeout: float = 120) -> None:
        self.address, self.timeout = f"ray:{name}", timeout
        if not ray.is_initialized():
            raise BackboneError(f"{self.address}: Ray is not running in this process; ray.init()")
        try:
            self._actor = ray.get_actor(name)
        except ValueError:
            raise BackboneError(
                f"{self.address}: there is no such actor in this job; start it with "
                f"medseg_gym.backbones.remote.ray.serve({name!r}, ...) and keep its handle"
            ) from None
        super().__init__(self._ask("facts"), device)

    def _encode(self, images: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, int]]:
        sizes: Mapping[str, tuple[int, int]] = self._ask("encode", dict(images))
        return sizes

    def _decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        decoded: tuple[np.ndarray, np.ndarray]
        try:
            decoded = self._ask("decode", list(rows), {})
        except MissingImages:  # dropped from its cache, or it was restarted
            decoded = self._ask("decode", list(rows), dict(images))
        return decoded

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=self.timeout)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, (MissingImages, NonFiniteError)):
                raise error.cause from None
            raise BackboneError(f"{self.address}: {method} failed: {error.cause}") from error
        except ray.exceptions.GetTimeoutError as error:
            raise BackboneError(
                f"{self.address}: no answer to {method} within {self.timeout:g} s"
            ) from error
        except ray.exceptions.RayError as error:
            raise BackboneError(
                f"{self.address}: the actor is dead ({type(error).__name__}); start it again with "
                "medseg_gym.backbones.remote.ray.serve(...)"
            ) from error


def build(name: str, device: torch.device, **options: Any) -> Backbone:
    """For `backbones.load("ray:NAME", timeout=...)`."""
    return RayBackbone(name.partition(":")[2], device, **options)
