"""Coordinates: notation of places in an image, shared by reading and writing.

System prompt, tool schemas, the reader of answers, conversations and exports all take their words
and numbers from it, so that a model is told, trained and read in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from medseg_gym.errors import PromptError
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_cell, to_fraction
from medseg_gym.prompts.lenient_json import read_lenient_json

COORDINATES = ("grid1000", "fraction", "pixel")
"""Values of the option `coordinates` of the chat environment."""

_DECIMALS = 4
_CORNERS = (("x1", "y1", "x2", "y2"), ("x", "y"))
_DEEPEST, _LONGEST = 4, 400


@dataclass(frozen=True)
class Coordinates:
    """Notation of places in tool calls.

    Args:
        kind: "grid1000": cells 0..999 of width and height; "fraction": 0..1 with up to four
            decimals; "pixel": pixels of the square image that is shown.
        side: Side of that image in pixels, at least 2; for "pixel" alone.

    Raises:
        PromptError: Unknown kind, or no side where one is needed.
    """

    kind: str = "grid1000"
    side: int = 0

    def __post_init__(self) -> None:
        if self.kind not in COORDINATES:
            raise PromptError(
                f"coordinates must be one of {', '.join(COORDINATES)}, got {self.kind!r}"
            )
        if self.kind == "pixel" and self.side < 2:
            raise PromptError(f"pixel coordinates need an image of 2 pixels, got {self.side}")

    @property
    def bins(self) -> int:
        """Different values per axis."""
        if self.kind == "fraction":
            return int(10**_DECIMALS)
        return self.side if self.kind == "pixel" else TOOL_CALL_BINS

    # words --------------------------------------------------------------------------------------
    @property
    def rule(self) -> str:
        """For the system prompt, one sentence."""
        if self.kind == "fraction":
            return (
                f"Coordinates are fractions from 0 to 1 with up to {_DECIMALS} decimals: x of the "
                "width from left to right, y of the height from top to bottom, whatever the size "
                "of the image."
            )
        if self.kind == "pixel":
            return (
                f"Coordinates are pixels of the image, which is {self.side} wide and {self.side} "
                f"high: whole numbers from 0 to {self.side - 1}, x from left to right, y from top "
                "to bottom."
            )
        return (
            f"Coordinates are whole numbers from 0 to {TOOL_CALL_BINS - 1}: x from left to right, "
            "y from top to bottom, whatever the size of the image."
        )

    @property
    def span(self) -> str:
        """For the description of an argument: "0 to 999 of width and height"."""
        if self.kind == "fraction":
            return "fractions 0 to 1 of width and height"
        if self.kind == "pixel":
            return f"pixels 0 to {self.side - 1} of the {self.side} x {self.side} image"
        return f"0 to {TOOL_CALL_BINS - 1} of width and height"

    @property
    def schema(self) -> dict[str, object]:
        """JSON schema of one number."""
        if self.kind == "fraction":
            return {"type": "number", "minimum": 0, "maximum": 1}
        return {"type": "integer", "minimum": 0, "maximum": self.bins - 1}

    @property
    def _wanted(self) -> str:
        if self.kind == "fraction":
            return "fractions 0..1 of width and height"
        of = f", pixels of the {self.side} x {self.side} image" if self.kind == "pixel" else ""
        return f"integers 0..{self.bins - 1}{of}"

    # numbers ------------------------------------------------------------------------------------
    def write(self, fraction: float) -> int | float:
        """A fraction of width or height, [0, 1], as this kind writes it."""
        if self.kind == "fraction":
            return round(fraction, _DECIMALS)
        return to_cell(fraction, self.bins)

    def read(self, place: str, values: Any, count: int, repairs: list[str]) -> list[float]:
        """Read the value of an argument.

        Args:
            place: Name of the argument and of its call, for messages.
            values: As the model wrote it: a list of numbers, perhaps as texts, nested, in pairs,
                by name or in a text.
            count: Numbers that are wanted: 4 for a box, 2 for a point.
            repairs: Gets what was forgiven.

        Returns:
            `count` fractions of width and height, in [0, 1].

        Raises:
            PromptError: What it is not, in words for the model.
        """
        listed = _as_list(values, count, repairs)
        if listed is None:
            kind = "fractions" if self.kind == "fraction" else "integers"
            raise PromptError(f"{place} must hold {count} {kind}, got {brief(values)}")
        numbers = [self._number(place, value) for value in listed]
        if self.kind == "fraction":
            fractions = [round(number, _DECIMALS) for number in numbers]
            self._refuse_outside(place, listed, [0 <= f <= 1 for f in fractions])
            if fractions != listed:
                repairs.append("coordinates rounded")
            return [f + 0.0 for f in fractions]  # -0.0 is 0
        if all(0 <= n <= 1 for n in numbers) and any(n % 1 for n in numbers):
            raise PromptError(
                f"{place} must hold {self._wanted}, not fractions; got {brief(values)}"
            )
        self._refuse_outside(place, listed, [-0.5 <= n <= self.bins for n in numbers])
        cells = [min(max(round(n), 0), self.bins - 1) for n in numbers]
        if cells != listed:
            repairs.append("coordinates rounded")
        return [to_fraction(cell, self.bins) for cell in cells]

    def _number(self, place: str, value: object) -> float:
        number = _as_number(value)
        if number is None:
            raise PromptError(f"{place} must hold {self._wanted}, got {brief(value)}")
        return number

    def _refuse_outside(self, place: str, values: Sequence[object], inside: Sequence[bool]) -> None:
        for value, fits in zip(values, inside, strict=True):
            if not fits:
                raise PromptError(f"{place} must hold {self._wanted}, got {brief(value)}")


GRID = Coordinates()
"""Cells 0..999, as MedSAM-Agent and the tables of the suite have them."""


def _as_list(values: Any, count: int, repairs: list[str]) -> list[Any] | None:
    """`count` values in a flat list; None where it is not plain which they are."""
    for _ in range(_DEEPEST):
        if isinstance(values, str) and len(values) <= _LONGEST:
            text = values.strip()
            try:
                values, _ = read_lenient_json(text if text[:1] in "[({" else f"[{text}]", cut=True)
            except ValueError:
                return None
            repairs.append("coordinates in a text")
        elif isinstance(values, dict):
            names = _CORNERS[0] if count == 4 else _CORNERS[1]
            if set(values) != set(names):
                return None
            values = [values[name] for name in names]
            repairs.append("coordinates by name")
        elif not isinstance(values, list):
            return None
        elif len(values) == count and not any(isinstance(v, (list, dict)) for v in values):
            return values
        elif count == 4 and len(values) == 2 and all(_is_pair(v) for v in values):
            values = [*values[0], *values[1]]
            repairs.append("coordinates in pairs")
        elif values and isinstance(values[0], (list, dict)) and all(v == values[0] for v in values):
            values = values[0]  # alone, or the same again and again
            repairs.append("coordinates nested")
        else:
            return None
    return None


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2


def _as_number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) < 20:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and abs(value) < 1e6 and math.isfinite(value):
        return float(value)
    return None
