"""Base of the learned backbones: passes of bounded size, precision, compilation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.errors import BackboneError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

T = TypeVar("T")
B = TypeVar("B", bound="BatchedBackbone")


class BatchedBackbone(ABC):
    """Base of backbones over a torch model.

    Args:
        model: Used in evaluation mode, its weights frozen.
        name: Shown in tables.
        device: Where the model goes.
        encode_batch: Most images in one encoder pass; by default 8 on a GPU and 1 on a CPU, where
            larger batches only miss the caches.
        decode_batch: Most rows in one decoder pass.
        dtype: "float32", or "bfloat16" or "float16" to run under autocast. Embeddings are
            kept in it; logits are float32 in any case.
        compile: True compiles the image encoder with torch.compile, a text names its backend. The
            first encoding then takes minutes.

    Raises:
        BackboneError: Unknown dtype, or a batch below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        device: torch.device | str = "cpu",
        encode_batch: int | None = None,
        decode_batch: int = 64,
        dtype: str = "float32",
        compile: bool | str = False,
    ) -> None:
        if dtype not in DTYPES:
            raise BackboneError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.name = name
        self.device = torch.device(device)
        self.dtype = DTYPES[dtype]
        self.encode_batch = encode_batch or (1 if self.device.type == "cpu" else 8)
        self.decode_batch = decode_batch
        if self.encode_batch < 1 or decode_batch < 1:
            raise BackboneError(f"batches must be at least 1, got {encode_batch}, {decode_batch}")
        self.model: Any = model.to(self.device).eval().requires_grad_(False)
        self._compiled = compile

    def __deepcopy__(self: B, file_cache: dict) -> B:
        # gymnasium deep-copies the kwargs of a spec: a model is shared, never duplicated.
        return self

    def compiled(self, function: Callable[..., T]) -> Callable[..., T]:
        """The image encoder as this backbone was asked to run it."""
        if not self._compiled:
            return function
        backend = self._compiled if isinstance(self._compiled, str) else "inductor"
        return torch.compile(function, backend=backend)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        mixed = self.dtype is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=mixed):
            yield

    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode images, each (H, W, 3) uint8, in passes of at most `encode_batch`."""
        embeddings: list[Embedding] = []
        with self._precision():
            for start in range(0, len(images), self.encode_batch):
                embeddings += self._encode(images[start : start + self.encode_batch])
        return embeddings

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Decode rows in passes of at most `decode_batch`; short rows are padded inertly."""
        with self._precision():
            passes = [
                self._decode(rows[start : start + self.decode_batch])
                for start in range(0, len(rows), self.decode_batch)
            ]
        if len(passes) == 1:
            return passes[0]
        return Prediction(torch.cat([p.logits for p in passes]), torch.cat([p.iou for p in passes]))

    @abstractmethod
    def _encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode one pass; every embedding owns its memory."""

    @abstractmethod
    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Decode one pass."""
