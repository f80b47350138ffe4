"""A cache of decoded arrays that the next case will probably need again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

CACHE_BYTES = 128_000_000

Value = TypeVar("Value")


class ByteCache:
    """Least-recently-used cache bounded by bytes, safe among threads.

    Args:
        limit: Bytes kept; a value larger than that is handed through and not kept.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held, never more than `limit`."""
        return self._bytes

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def get(
        self, key: Hashable, make: Callable[[], Value], nbytes: Callable[[Value], int]
    ) -> Value:
        """Return the value of `key`, made if it is not at hand.

        Args:
            key: Names the value, and with it its type.
            make: Makes it; may run twice where two threads ask at once.
            nbytes: Size of a value in bytes.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return cast(Value, self._values[key][0])
        value = make()
        size = nbytes(value)
        if size > self.limit:
            return value
        with self._lock:
            if key not in self._values:
                self._values[key] = (value, size)
                self._bytes += size
                while self._bytes > self.limit:
                    self._bytes -= self._values.popitem(last=False)[1][1]
        return value
