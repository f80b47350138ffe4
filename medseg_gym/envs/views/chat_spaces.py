"""Spaces of text: any text belongs to them."""

from __future__ import annotations

import string
from typing import Any

from gymnasium.spaces import Text

from medseg_gym.prompts import GRID, TOOLS, ArrayCodec, Coordinates, encode_tool_call

_LONGEST = 1 << 20


class AnyText(Text):
    """Every str, of any length and characters; samples are short.

    Args:
        seed: Of the samples.
    """

    def __init__(self, seed: Any = None) -> None:
        super().__init__(_LONGEST, min_length=0, charset=string.printable, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return True if `x` is a str."""
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A few printable characters."""
        length = int(self.np_random.integers(0, 41)) if mask is probability is None else None
        return super().sample((length, None) if length is not None else mask, probability)

    @property
    def is_np_flattenable(self) -> bool:
        """False: there is no bound to the length."""
        return False

    def __repr__(self) -> str:
        """The name alone; the characters tell nothing."""
        return f"{type(self).__name__}()"

    def __eq__(self, other: Any) -> bool:
        """Return True if `other` is an equal space."""
        return type(self) is type(other) and vars_of(self) == vars_of(other)

    __hash__ = None  # type: ignore[assignment]


class AnswerText(AnyText):
    """Every str; samples are random tool calls, and now and then words that are none.

    Args:
        tools: Subset of `prompts.TOOLS` that is sampled from.
        seed: Of the samples.
        coordinates: How places are written.
    """

    def __init__(
        self, tools: tuple[str, ...] = TOOLS, seed: Any = None, coordinates: Coordinates = GRID
    ) -> None:
        super().__init__(seed)
        self.tools, self.coordinates = tools, coordinates
        self._codec = ArrayCodec(tools=tools)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A tool call, uniform over the action space of the array view; in one of ten none."""
        if mask is not None or probability is not None or self.np_random.random() < 0.1:
            return super().sample(mask, probability)
        return self._sample_call()

    def _sample_call(self) -> str:
        row = self.np_random.integers(self._codec.space.nvec)
        return encode_tool_call(self._codec.decode(row[None])[0], self.coordinates)


def vars_of(space: AnyText) -> Any:
    """Return the values that make two spaces of the same kind equal."""
    return getattr(space, "tools", None), getattr(space, "coordinates", None)
