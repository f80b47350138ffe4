"""From slices with prompts to their neighbours: how a 2D backbone works through a volume.

A front starts in either direction at every slice whose prompts show the target, and passes through
slices that prompts have corrected. In each step the mask of the last
slice becomes the prompt of the next one: its bounding box, a little larger, and its low-resolution
logits where the backbone takes them. All fronts of all volumes move in the same decode.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes.decoding import SliceRequest
from medseg_gym.episodes.volumes.episode import SliceState, sources
from medseg_gym.errors import EpisodeError
from medseg_gym.options import Options
from medseg_gym.prompts import AddBox

Plan = Generator[list[SliceRequest], list[SliceState], dict[int, SliceState]]
"""Yields requests, is sent their answers, and returns the new states of slices."""

_LEAST_SPREAD = 4.0
"""Standard deviation of grey values that even an even region is granted, of 255."""

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
"""Ones in every byte."""


@dataclass(frozen=True, kw_only=True)
class PropagationOptions(Options):
    """Rule that carries masks from slice to slice, and ends that."""

    topic: ClassVar[str] = "Propagation"

    memory: bool = True
    """Let a backbone that has a memory of slices (`sam2.1_*`, `sam2_*`, `medsam2`) carry masks by
    it; of the settings below `max_empty` alone then counts. Others go from slice to slice."""

    max_empty: int | None = None
    """With memory: end a direction after so many slices in a row without a mask. None goes on to
    the last slice, as the model's own predictor does."""

    loosen: float = 0.05
    """Each side of the box round the neighbour's mask goes outward by this share of the box's own
    width or height, and by one pixel at least."""

    mask_input: bool = True
    """Start from the neighbour's logits, where the backbone takes them."""

    min_overlap: float = 0.5
    """Least overlap of a mask with its neighbour's, as intersection over the smaller area."""

    max_change: float = 2.0
    """Most times by which the area may grow or shrink from one slice to the next."""

    max_shift: float = 1.0
    """Most by which the mean grey value within the mask may differ from the neighbour's, in the
    neighbour's standard deviations. A promptable segmenter finds something in every box: that the
    target has ended shows in what is inside the mask."""

    max_drift: float = 2.0
    """The same against the slice with prompts that the mask comes from."""

    def __post_init__(self) -> None:
        for name, fine in (
            ("loosen", 0 <= self.loosen <= 1),
            ("min_overlap", 0 <= self.min_overlap <= 1),
            ("max_change", self.max_change >= 1),
            ("max_shift", self.max_shift > 0),
            ("max_drift", self.max_drift > 0),
            ("max_empty", self.max_empty is None or self.max_empty >= 1),
        ):
            if not fine:
                raise EpisodeError(f"{name} is out of range, got {getattr(self, name)!r}")


@dataclass
class Front:
    """A mask on its way through the slices.

    Args:
        at: Slice that it has reached.
        state: The mask there.
        source: The slice with prompts that it comes from.
        step: +1 or -1.
        last: Slice at which it ends at the latest.
    """

    at: int
    state: SliceState
    source: SliceState
    step: int
    last: int

    @property
    def to_go(self) -> range:
        """Slices ahead."""
        return range(self.at + self.step, self.last + self.step, self.step)


def plan_fronts(prompted: Mapping[int, SliceState], depth: int) -> list[Front]:
    """Start a front in both directions at every source (see `sources`).

    Between two of them each may go up to the other; usually they meet half way. A slice whose
    prompts leave its mask empty sends out nothing, and its neighbours' fronts come up to it: there
    the target ends. Fronts pass through the masks of other slices with prompts.

    Args:
        prompted: States of slices with prompts, by index.
        depth: Slices of the volume.
    """
    starts = sources(prompted)
    order = sorted({*starts, *(i for i, one in prompted.items() if not one.pixels)})
    fronts = []
    for index in starts:
        state = prompted[index]
        below = max((i for i in order if i < index), default=None)
        above = min((i for i in order if i > index), default=None)
        if below is None:
            low = 0
        else:
            low = below + 1
        if above is None:
            high = depth - 1
        else:
            high = above - 1
        fronts += [Front(index, state, state, -1, low), Front(index, state, state, 1, high)]
    return [front for front in fronts if front.to_go]


def propagate(
    case: VolumeCase, prompted: Mapping[int, SliceState], options: PropagationOptions
) -> Plan:
    """Carry the masks of prompted slices through the others.

    The result depends on the prompted slices alone, not on what an earlier propagation left.

    Args:
        case: The volume.
        prompted: States of slices with prompts, by index.
        options: How.
    """
    carried: dict[int, SliceState] = {}
    fronts = plan_fronts(prompted, case.depth)
    while fronts := _next_to_make(fronts, prompted, carried, options):
        states = yield [_request(case, front, options) for front in fronts]
        alive = []
        for front, state in zip(fronts, states, strict=True):
            if goes_on(front.source, front.state, state, options):
                front.at, front.state = front.to_go[0], state
                carried[front.at] = state
                alive.append(front)
        fronts = alive
    return carried


def _next_to_make(
    fronts: Sequence[Front],
    prompted: Mapping[int, SliceState],
    carried: Mapping[int, SliceState],
    options: PropagationOptions,
) -> list[Front]:
    """Move fronts on over slices with prompts; return those that have a mask to make next.

    A front has ended where it meets what another one has made. If that does not fit its own mask,
    the larger one goes on over the smaller one: a box at the very end of the target, where it is
    small, takes no slices away from one in its middle. Where two come to one slice at a time, it
    belongs to the larger, else to the lower one.
    """
    alive, taken = [], set()
    for front in sorted(fronts, key=lambda front: (-front.state.pixels, -front.step)):
        while front.to_go and (met := prompted.get(front.to_go[0])) is not None:
            if not (met.shows_target or goes_on(front.source, front.state, met, options)):
                break
            front.at, front.state = front.to_go[0], met
        else:
            if not front.to_go or front.to_go[0] in taken:
                continue
            there = carried.get(front.to_go[0])
            if there is not None and (
                there.pixels >= front.state.pixels or fits(front.state, there, options)
            ):
                continue
            taken.add(front.to_go[0])
            alive.append(front)
    return alive


def goes_on(
    source: SliceState, before: SliceState, after: SliceState, options: PropagationOptions
) -> bool:
    """Return whether a mask is still that of the target; else it is dropped, and its front ends.

    Args:
        source: Slice with prompts that the mask comes from.
        before: Slice before it.
        after: Slice in question.
        options: With the limits.
    """
    if not after.pixels or not fits(before, after, options):
        return False
    return all(
        abs(after.grey[0] - other.grey[0]) <= limit * max(other.grey[1], _LEAST_SPREAD)
        for other, limit in ((before, options.max_shift), (source, options.max_drift))
    )


def fits(one: SliceState, other: SliceState, options: PropagationOptions) -> bool:
    """Return whether two masks of neighbouring slices agree in area and place; neither is empty."""
    if not 1 / options.max_change <= one.pixels / other.pixels <= options.max_change:
        return False
    both = int(_ONES[one.bits & other.bits].sum())
    return both / min(one.pixels, other.pixels) >= options.min_overlap


def _request(case: VolumeCase, front: Front, options: PropagationOptions) -> SliceRequest:
    extent = front.state.extent
    assert extent is not None  # an empty mask is not carried
    to_go: Sequence[int] = front.to_go
    return SliceRequest(
        case,
        to_go[0],
        carried=loosened(extent, options.loosen, case.height, case.width),
        logits=front.state.logits if options.mask_input else None,
        ahead=to_go[1:],
    )


def loosened(box: AddBox, share: float, height: int, width: int) -> AddBox:
    """Move each side of a box outward, by a pixel at least; it is cut at the image's edges."""
    if not share:
        return box
    x, y = max(share * (box.x2 - box.x1), 1 / width), max(share * (box.y2 - box.y1), 1 / height)
    return AddBox(
        max(box.x1 - x, 0.0), max(box.y1 - y, 0.0), min(box.x2 + x, 1.0), min(box.y2 + y, 1.0)
    )
