"""Messages with arrays over a socket. Both sides import this, so it needs numpy alone.

A message is the length of a JSON text, the text, and the bytes of its arrays one after another,
whose types and shapes stand in the text. Nothing that is read is ever run.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

_LENGTH = struct.Struct(">Q")
_TYPES = ("int32", "float32", "uint8")


def send(
    stream: socket.socket,
    message: dict[str, Any],
    arrays: Sequence[np.ndarray] = (),
    deadline: float | None = None,
) -> None:
    """Send a message.

    Args:
        stream: Connected.
        message: JSON.
        arrays: Of int32, float32 or uint8.
        deadline: Of `time.monotonic`; None waits for ever.

    Raises:
        OSError: The other side is gone.
        TimeoutError: The deadline has passed.
    """
    shapes = [[array.dtype.name, array.shape] for array in arrays]
    text = json.dumps({"message": message, "arrays": shapes}).encode()
    _wait(stream, deadline)
    stream.sendall(_LENGTH.pack(len(text)) + text)
    for array in arrays:
        _wait(stream, deadline)
        stream.sendall(np.ascontiguousarray(array).data.cast("B") if array.size else b"")


def receive(
    stream: socket.socket, deadline: float | None = None
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Wait for a message.

    Args:
        stream: Connected.
        deadline: Of `time.monotonic`; None waits for ever.

    Returns:
        The message and its arrays.

    Raises:
        EOFError: The other side is gone, maybe in the middle of a message.
        TimeoutError: The deadline has passed.
        ValueError: Not a message.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size, deadline))
    whole = json.loads(bytes(_read(stream, length, deadline)))
    arrays = []
    for name, shape in whole["arrays"]:
        if name not in _TYPES:
            raise ValueError(f"an array of {name!r}")
        array: np.ndarray = np.empty(shape, name)
        if array.size:
            array.data.cast("B")[:] = _read(stream, array.nbytes, deadline)
        arrays.append(array)
    return whole["message"], arrays


def _read(stream: socket.socket, count: int, deadline: float | None) -> bytearray:
    data = bytearray(count)
    view, read = memoryview(data), 0
    while read < count:
        _wait(stream, deadline)
        new = stream.recv_into(view[read:])
        if not new:
            raise EOFError("the other side is gone")
        read += new
    return data


def _wait(stream: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        stream.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    stream.settimeout(left)
