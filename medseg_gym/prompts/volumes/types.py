"""The eight things that an agent can do in a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.errors import PromptError
from medseg_gym.prompts.types import AddBox, AddPoint, Clear, Stop, Undo


def _check_slice(prompt: object, index: int) -> None:
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise PromptError(
            f"{type(prompt).__name__}.slice must be the index of a slice, a whole number from 0, "
            f"got {index!r}"
        )


@dataclass(frozen=True)
class SlicePrompt:
    """Add a box or a click on one slice, and move the view there.

    Args:
        slice: Index of the slice, from 0.
        prompt: The box or the click, in fractions of the slice's width and height.
    """

    slice: int
    prompt: AddBox | AddPoint

    def __post_init__(self) -> None:
        _check_slice(self, self.slice)

    @property
    def tool(self) -> str:
        """Name of the tool in the array action."""
        return self.prompt.tool


@dataclass(frozen=True)
class Look:
    """Move the view to a slice; changes no mask.

    Args:
        slice: Index of the slice, from 0.
    """

    tool: ClassVar[str] = "look"
    slice: int

    def __post_init__(self) -> None:
        _check_slice(self, self.slice)


@dataclass(frozen=True)
class Propagate:
    """Carry the masks of all slices with prompts through the slices without."""

    tool: ClassVar[str] = "propagate"


VolumePrompt = SlicePrompt | Propagate | Look | Undo | Clear | Stop

VOLUME_TOOLS = (
    "box",
    "positive_point",
    "negative_point",
    "propagate",
    "look",
    "undo",
    "clear",
    "stop",
)
"""Tool names in the order of the array action, for ever."""
