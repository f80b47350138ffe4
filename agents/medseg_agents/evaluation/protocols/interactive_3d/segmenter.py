"""The contract of a method that the protocol plays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from medseg_agents.evaluation.protocols.interactive_3d.clicks import ClassClicks
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.errors import BackboneError


class InteractiveSegmenter3D(Protocol):
    """Segments several classes of a volume from a box and clicks per class.

    Attributes:
        name: As shown in summaries.
    """

    name: str

    def segment(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        boxes: Sequence[VolumeBox] | None,
        clicks: Sequence[ClassClicks],
        previous: np.ndarray | None,
    ) -> np.ndarray:
        """Segment a volume.

        Args:
            image: (D, H, W) or (D, H, W, 3) uint8.
            spacing: Millimetres between slices, rows and columns.
            boxes: One per class; None for a case without.
            clicks: All so far, one entry per class; empty ones at the box.
            previous: (D, H, W) labels of the iteration before; None at the first.

        Returns:
            (D, H, W) whole numbers: 0 is background, n is the n-th class.
        """
        ...


def require_prompts(name: str, kinds: Collection[str]) -> None:
    """Refuse a backbone that cannot take the protocol's prompts.

    Args:
        name: Of the backbone.
        kinds: Its `prompt_kinds`.

    Raises:
        BackboneError: Boxes or points are not among them.
    """
    if lacking := {"box", "point"} - set(kinds):
        raise BackboneError(
            f"backbone {name!r} takes no {' or '.join(sorted(lacking))}; the protocol "
            "has boxes and points"
        )
