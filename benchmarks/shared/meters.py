"""Meters inside a run: real counts, seconds per stage, peak memory."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch

from medseg_gym.backbones import Backbone, Embedding, Prediction, PromptRow
from medseg_gym.envs.core import EnvCore
from medseg_gym.episodes import decoding

PARTS = ("encode", "decode", "mask", "observe")
"""Parts of a step that are timed; "mask" is `to_image`, threshold and Dice. The rest is Python."""

R = TypeVar("R")


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up seconds by part.

    Args:
        device: Waited for at both ends of a part.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the body."""
        synchronise(self.device)
        began = time.perf_counter()
        yield
        synchronise(self.device)
        self.seconds[name] += time.perf_counter() - began

    def wrap(self, name: str, function: Callable[..., R]) -> Callable[..., R]:
        """The same function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> R:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def watch(self, core: EnvCore) -> Iterator[None]:
        """Time masks and observations of an `EnvCore` inside the context."""
        measure = self.wrap("mask", decoding.measure_masks)
        observe = self.wrap("observe", core.view.observe)
        with patch.object(decoding, "measure_masks", measure):
            with patch.object(core.view, "observe", observe):
                yield


class MeteredBackbone:
    """A backbone that counts what is asked of it; its embeddings are cached apart.

    Counts: "encodes" (images), "rows" (decoded), "decode calls" (of `Backbone.decode`) and
    "decoder passes" (forward passes of the model's decoder, seen by a hook on its IoU head; where
    there is no such module, the calls).

    Args:
        backbone: Who does the work.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.name, self.device = backbone.name, backbone.device
        self.prompt_kinds = backbone.prompt_kinds
        self.trained_kinds = backbone.trained_kinds
        self.takes_mask_input = backbone.takes_mask_input
        self.counts: Counter[str] = Counter()
        self.stopwatch: Stopwatch | None = None
        self._decoding = False
        model = getattr(backbone, "model", None)
        modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
        heads = [module for name, module in modules if name.endswith("iou_prediction_head")]
        self._hook = heads[0].register_forward_hook(self._count_pass) if len(heads) == 1 else None

    def __deepcopy__(self, file_cache: dict) -> MeteredBackbone:
        return self

    def __getattr__(self, name: str) -> Any:
        if name == "backbone":  # not set yet
            raise AttributeError(name)
        return getattr(self.backbone, name)

    def __enter__(self) -> MeteredBackbone:
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()

    def _count_pass(self, *_: object) -> None:
        self.counts["decoder passes"] += self._decoding

    def _timed(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.stopwatch is None else self.stopwatch.part(name)

    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """See `Backbone.encode`."""
        self.counts["encodes"] += len(images)
        with self._timed("encode"):
            return self.backbone.encode(images)

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """See `Backbone.decode`."""
        self.counts["rows"] += len(rows)
        self.counts["decode calls"] += 1
        self.counts["decoder passes"] += self._hook is None
        self._decoding = True
        try:
            with self._timed("decode"):
                return self.backbone.decode(rows)
        finally:
            self._decoding = False

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """See `Backbone.to_image`."""
        with self._timed("mask"):
            return self.backbone.to_image(logits, embeddings)


def forget_peak(device: torch.device) -> None:
    """Start the GPU's peak memory anew; a process's own peak cannot be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> float | None:
    """MiB: on a GPU since `forget_peak`; else of the process since it began, None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
