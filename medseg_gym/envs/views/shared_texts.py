"""Texts between processes, for gymnasium's `AsyncVectorEnv`.

Its own way of sharing texts reads them once, when the environment is made, and knows printable
ASCII alone: every observation would show the same zeros.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from medseg_gym.envs.views.chat_spaces import AnyText
from medseg_gym.errors import MedSegError

_ROOM = 1 << 16  # bytes of a slot's text in UTF-8; a turn has a few hundred
_LENGTH = 8  # bytes before it that hold its length


class SharedTexts(Sequence[str]):
    """The texts of all slots as they are now; a copy is a tuple and stays as it is.

    Args:
        memory: Of `create_shared_memory`.
        count: Slots.
    """

    def __init__(self, memory: Any, count: int) -> None:
        self._slots = _slots(memory, count)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        slot = self._slots[index]
        length = int(slot[:_LENGTH].view(np.int64)[0])
        return slot[_LENGTH : _LENGTH + length].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __deepcopy__(self, file_cache: dict) -> tuple[str, ...]:
        return tuple(self)


def _slots(memory: Any, count: int) -> np.ndarray:
    return np.frombuffer(memory.get_obj(), np.uint8).reshape(count, _LENGTH + _ROOM)


@create_shared_memory.register
def _create(space: AnyText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.Array("B", n * (_LENGTH + _ROOM))


@read_from_shared_memory.register
def _read(space: AnyText, shared_memory: Any, n: int = 1) -> Any:
    return SharedTexts(shared_memory, n)


@write_to_shared_memory.register
def _write(space: AnyText, index: int, value: str, shared_memory: Any) -> None:
    content = value.encode("utf-8", "surrogatepass")
    if len(content) > _ROOM:
        raise MedSegError(
            f"a text of {len(content)} bytes does not fit into the {_ROOM} that processes share; "
            'give vector_kwargs={"shared_memory": False}, or leave vectorization_mode out'
        )
    memory = np.frombuffer(shared_memory.get_obj(), np.uint8)
    slot = memory[index * (_LENGTH + _ROOM) :][: _LENGTH + _ROOM]
    slot[:_LENGTH].view(np.int64)[0] = len(content)
    slot[_LENGTH : _LENGTH + len(content)] = np.frombuffer(content, np.uint8)
