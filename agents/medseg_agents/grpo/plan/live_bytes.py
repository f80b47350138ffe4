"""Bytes of the tensors that exist while something is computed, on tensors without data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, until nothing refers to them any more.

    Args:
        unit: Only sizes that are a multiple of it count. With a prime number of tokens those are
            activations; weights, their gradients and their copies in another type are not.

    Attributes:
        now: Bytes that exist.
        peak: Bytes that existed at most.
    """

    def __init__(self, unit: int = 1) -> None:
        super().__init__()
        self.unit = unit
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute, then count what is new."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or size % self.unit:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave out tensors that were there before and are written to: weights and moments."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}


@contextmanager
def without_data() -> Iterator[None]:
    """Make and compute tensors that have shapes but no data, as if on a CPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
