"""Waits of the host for a GPU, counted on a machine without one.

A backbone on torch's "meta" device runs every line of a step, on tensors that have a shape and no
memory: whatever asks for their values, or copies to them out of memory that is not pinned, passes
here and is counted. torch's own count (`torch.cuda.set_sync_debug_mode`) needs a GPU.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from medseg_gym.backbones.batching.passes import BatchedBackbone

READS, COPIES = "reads values", "copies and waits"
_ATEN = torch.ops.aten
_PACKAGE = Path(__file__).parents[2] / "medseg_gym"
_FROM_HOST = (torch.tensor, torch.as_tensor, torch.asarray)
_INDEXED = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


class HostWaits:
    """Counts waits of the host while it is entered; values that are read are 1 throughout.

    Attributes:
        places: How often the host waited, by "file:line" of the package and what for, `READS` or
            `COPIES`.
    """

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self._modes = ExitStack()

    @property
    def count(self) -> int:
        """Waits in all."""
        return sum(self.places.values())

    def __enter__(self) -> HostWaits:
        operators = _Operators(self._waited)
        self._modes.enter_context(operators)
        self._modes.enter_context(_Calls(self._waited, operators))
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.close()

    def _waited(self, why: str) -> None:
        frames = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(_PACKAGE)]
        where = "outside the package"
        if frames:
            path = Path(frames[-1].filename).relative_to(_PACKAGE.parent)
            where = f"{path}:{frames[-1].lineno}"
        self.places[f"{where} {why}"] += 1


class _Operators(TorchDispatchMode):
    """Operators that a GPU would be waited for."""

    def __init__(self, waited: Callable[[str], None]) -> None:
        super().__init__()
        self._waited = waited
        self.counted = True

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN._to_copy.default:
            source, target = _kind(args[0]), torch.device(kwargs.get("device") or args[0].device)
            if source == "meta" and target.type == "cpu":
                self._waited(READS)
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if source == "cpu" and target.type == "meta" and not kwargs.get("non_blocking"):
                self._count_copy()
        elif func is _ATEN._local_scalar_dense.default and _kind(args[0]) == "meta":
            self._waited(READS)
            return 1
        elif func.overloadpacket in (_ATEN.index, _ATEN.index_put, _ATEN.index_put_):
            for index in args[1]:
                if index is not None and (_kind(args[0]), _kind(index)) == ("meta", "cpu"):
                    self._count_copy()
        elif func is _ATEN.copy_.default and (_kind(args[0]), _kind(args[1])) == ("meta", "cpu"):
            if not (kwargs.get("non_blocking") or args[2:3] == (True,)):
                self._count_copy()
        if func.namespace == "aten":
            # In inference mode, operators that are made of others arrive whole.
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        return func(*args, **kwargs)

    def _count_copy(self) -> None:
        if self.counted:
            self._waited(COPIES)


class _Calls(TorchFunctionMode):
    """Calls that copy numbers of Python or NumPy: to "meta" torch makes them without a copy."""

    def __init__(self, waited: Callable[[str], None], operators: _Operators) -> None:
        super().__init__()
        self._waited = waited
        self._operators = operators

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        copies = (
            func in _FROM_HOST
            and kwargs.get("device") is not None
            and torch.device(kwargs["device"]).type == "meta"
            and not isinstance(args[0], torch.Tensor)
        ) or (func in _INDEXED and _kind(args[0]) == "meta" and _has_numbers(args[1]))
        if not copies:
            return func(*args, **kwargs)
        self._waited(COPIES)
        self._operators.counted = False
        try:
            return func(*args, **kwargs)
        finally:
            self._operators.counted = True


def _has_numbers(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list | np.ndarray) for part in parts)


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.device.type)


@contextmanager
def _float32(self: BatchedBackbone) -> Iterator[None]:
    with torch.inference_mode():
        yield


def without_autocast() -> AbstractContextManager[Any]:
    """Let backbones run on the "meta" device, which autocast does not know, in float32."""
    return patch.object(BatchedBackbone, "_precision", _float32)
