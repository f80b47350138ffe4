"""Scenes: functions that draw images, with the names of what they draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

HARD_KINDS = ("low_contrast", "thin", "two_part", "tiny", "absent")
"""Kinds of hard cases; a fifth of the hard cases each, in this order."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """One drawn image and the truth of everything nameable in it.

    Args:
        image: (256, 256, 3) uint8 RGB.
        masks: (256, 256) bool masks by structure name; a structure that is not there is missing
            or empty.
        spacing: Plausible millimetres per pixel as (row, column), or None.
    """

    image: np.ndarray
    masks: Mapping[str, np.ndarray]
    spacing: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scene:
    """A kind of image.

    Args:
        name: Word in the case specification, e.g. "abdomen".
        modality: As in `Case.modality`.
        view: Words after "in" of a target text, e.g. "abdomen CT".
        structures: Names that standard cases ask for; a standard image shows at least four.
        hard: For each of low_contrast, thin, two_part and tiny the structure that a hard image
            shows that way.
        optional: Structures that a hard image may lack, so that they can be asked for in vain.
        draw: Called with (generator, hard, left out structure or ""); draws one image. Where
            hard is True all structures named in `hard` are shown.
    """

    name: str
    modality: str
    view: str
    structures: tuple[str, ...]
    hard: Mapping[str, str]
    optional: tuple[str, ...]
    draw: Callable[[np.random.Generator, bool, str], Drawing]

    def text(self, structure: str) -> str:
        """Return the target text of a structure."""
        return f"{structure} in {self.view}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts of standard and hard cases, in fixed order."""
        names = dict.fromkeys((*self.structures, *self.hard.values(), *self.optional))
        return tuple(self.text(name) for name in names)
