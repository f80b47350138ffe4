"""From slices with prompts to the others by the backbone's own memory, as in a video.

Every slice with prompts is remembered first. Then one direction goes up from the lowest of them
through all slices above, and one goes down from it: `SAM2VideoPredictor.propagate_in_video` forward
and, after a fresh start with the same prompts, in reverse. What a direction has passed it remembers
as well; the other one does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medseg_gym.backbones.memory import SliceMemory
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes.decoding import SliceRequest
from medseg_gym.episodes.volumes.episode import SliceState
from medseg_gym.episodes.volumes.propagation import Plan, PropagationOptions


@dataclass
class Direction:
    """A way through the slices without prompts.

    Args:
        to_go: Slices ahead, the next one first.
        reverse: Towards lower indices.
        empty: Slices in a row without a mask, up to now.
    """

    to_go: Sequence[int]
    reverse: bool
    empty: int = 0


def propagate_by_memory(
    case: VolumeCase,
    prompted: Mapping[int, SliceState],
    options: PropagationOptions,
    memory: SliceMemory,
) -> Plan:
    """Carry the masks of prompted slices through the others.

    The result depends on the prompted slices alone; their own masks stay as they are.

    Args:
        case: The volume.
        prompted: States of slices with prompts, by index; at least one.
        options: How.
        memory: Fresh, of this volume.
    """
    yield [
        SliceRequest(case, i, one.box, one.points, one.carried, one.mask_input, memory=memory)
        for i, one in sorted(prompted.items())
    ]
    start = min(prompted)
    upward = [i for i in range(start, case.depth) if i not in prompted]
    ways = [Direction(upward, False), Direction(range(start - 1, -1, -1), True)]
    carried: dict[int, SliceState] = {}
    while ways := [way for way in ways if way.to_go and way.empty != options.max_empty]:
        states = yield [
            SliceRequest(
                case, way.to_go[0], ahead=way.to_go[1:], memory=memory, reverse=way.reverse
            )
            for way in ways
        ]
        for way, state in zip(ways, states, strict=True):
            if state.pixels:
                carried[way.to_go[0]] = state
            way.empty = 0 if state.pixels else way.empty + 1
            way.to_go = way.to_go[1:]
    return carried
