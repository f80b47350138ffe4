"""The five things an agent can do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import ClassVar

from medseg_gym.errors import PromptError


def _keep_fractions(prompt: object, **values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
            raise PromptError(
                f"{type(prompt).__name__}.{name} must be a fraction of the image in [0, 1], "
                f"got {value!r}"
            )
        object.__setattr__(prompt, name, float(value))  # a float32, say, is not JSON


@dataclass(frozen=True)
class AddBox:
    """Enclose the target; replaces an earlier box.

    Args:
        x1: Left edge as a fraction of the width, [0, 1].
        y1: Top edge as a fraction of the height, [0, 1].
        x2: Right edge; corners may come in any order and are stored sorted.
        y2: Bottom edge.
    """

    tool: ClassVar[str] = "box"
    x1: float
    y1: float
    x2: float
    y2: float

    def __post_init__(self) -> None:
        _keep_fractions(self, x1=self.x1, y1=self.y1, x2=self.x2, y2=self.y2)
        for low, high in (("x1", "x2"), ("y1", "y2")):
            a, b = getattr(self, low), getattr(self, high)
            object.__setattr__(self, low, min(a, b))
            object.__setattr__(self, high, max(a, b))

    @property
    def is_empty(self) -> bool:
        """True if the box has no area; an environment answers it as an invalid action."""
        return self.x1 == self.x2 or self.y1 == self.y2


@dataclass(frozen=True)
class AddPoint:
    """Click on the target (positive) or on what is wrongly included (negative).

    Args:
        x: Fraction of the width, [0, 1].
        y: Fraction of the height, [0, 1].
        positive: True to add, False to remove.
    """

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        _keep_fractions(self, x=self.x, y=self.y)

    @property
    def tool(self) -> str:
        """Name of the tool in the array action."""
        return "positive_point" if self.positive else "negative_point"


@dataclass(frozen=True)
class Undo:
    """Go back to the state before the last valid add or clear."""

    tool: ClassVar[str] = "undo"


@dataclass(frozen=True)
class Clear:
    """Drop all prompts, the logits and the mask."""

    tool: ClassVar[str] = "clear"


@dataclass(frozen=True)
class Stop:
    """Accept the mask and end the episode."""

    tool: ClassVar[str] = "stop"


Prompt = AddBox | AddPoint | Undo | Clear | Stop

TOOLS = ("box", "positive_point", "negative_point", "undo", "clear", "stop")
"""Tool names in the order of the array action, for ever."""

KIND_OF_TOOL = MappingProxyType(
    {"box": "box", "positive_point": "point", "negative_point": "point"}
)
"""Kind of prompt that a segmenter must accept for a tool; the others need none."""


def answered_tools(tools: Sequence[str], prompt_kinds: Collection[str]) -> tuple[str, ...]:
    """Return those of some tools that a segmenter can answer.

    Args:
        tools: Out of `TOOLS` or `VOLUME_TOOLS`.
        prompt_kinds: That the segmenter accepts.
    """
    return tuple(t for t in tools if t not in KIND_OF_TOOL or KIND_OF_TOOL[t] in prompt_kinds)
