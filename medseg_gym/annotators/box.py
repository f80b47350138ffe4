"""The oracle box: round the truth, tight, loosened or jittered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_gym.annotators.scripted import OracleScript
from medseg_gym.episodes import Episode
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import AddBox, ArrayCodec, Prompt, Stop
from medseg_gym.prompts.grid import to_cell, to_fraction


def tight_box(mask: np.ndarray) -> AddBox | None:
    """The smallest box round a (H, W) bool mask, along pixel edges; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    return AddBox(
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def box_iou(one: AddBox, other: AddBox) -> float:
    """Intersection over union of two boxes, 0 where neither has an area."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    both = max(0.0, width) * max(0.0, height)
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other)]
    union = sum(areas) - both
    return both / union if union > 0 else 0.0


def box_agreement(one: AddBox | None, other: AddBox | None) -> float:
    """Intersection over union of two boxes, either of which may be missing; two of none agree."""
    return float(one is other) if one is None or other is None else box_iou(one, other)


def disturb(
    box: AddBox, generator: np.random.Generator, loosen: float = 0.0, jitter: float = 0.0
) -> AddBox:
    """Move each side as a person would.

    Args:
        box: To start from.
        generator: Four draws of each kind.
        loosen: Each side goes outward by a uniform share up to this of the box's own extent.
        jitter: Each side then moves either way by a uniform share up to this of it.

    Returns:
        The box, cut at the image's edges.
    """
    width, height = box.x2 - box.x1, box.y2 - box.y1
    outward = generator.uniform(0, loosen, 4) if loosen else np.zeros(4)
    either = generator.uniform(-jitter, jitter, 4) if jitter else np.zeros(4)
    shift = outward * [-1, -1, 1, 1] + either
    sides = np.array([box.x1, box.y1, box.x2, box.y2]) + shift * [width, height, width, height]
    return AddBox(*(float(side) for side in sides.clip(0, 1)))


def widen(box: AddBox, bins: int) -> AddBox:
    """The box, or where a grid of `bins` cells would give it no area, the least one that has."""
    sides = []
    for low, high in ((box.x1, box.x2), (box.y1, box.y2)):
        cell = to_cell(low, bins)
        if cell == to_cell(high, bins):
            cell = min(cell, bins - 2)
            low, high = to_fraction(cell, bins), to_fraction(cell + 1, bins)
        sides.append((low, high))
    (x1, x2), (y1, y2) = sides
    return AddBox(x1, y1, x2, y2)


class OracleBox(OracleScript):
    """One box round the truth, then stop; stops at once where the target is absent.

    Args:
        codec: Of the view it plays through.
        loosen: See `disturb`.
        jitter: See `disturb`.
    """

    name = "oracle-box"
    needs: tuple[str, ...] = ("box", "stop")

    def __init__(self, codec: ArrayCodec, loosen: float = 0.0, jitter: float = 0.0) -> None:
        if not (0 <= loosen <= 2 and 0 <= jitter < 0.5):
            raise PolicyError(
                f"oracle-box needs 0 <= loosen <= 2 and 0 <= jitter < 0.5, got {loosen}, {jitter}"
            )
        super().__init__(codec)
        self.loosen, self.jitter = loosen, jitter
        self.name = self.name_with(loosen=(loosen, 0), jitter=(jitter, 0))

    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """Box in the first turn, then stop."""
        prompts: list[Prompt] = []
        for slot, episode in zip(slots, episodes, strict=True):
            box = None if self.turns[slot] else tight_box(episode.case.mask)
            if box is None:
                prompts.append(Stop())
            else:
                box = disturb(box, self.generators[slot], self.loosen, self.jitter)
                prompts.append(widen(box, self.codec.bins))
        return prompts
