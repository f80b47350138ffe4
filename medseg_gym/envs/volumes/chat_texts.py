"""Words of the chat environment on volumes: system prompt, turns and tool schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from medseg_gym.envs.views.chat_texts import (
    CALLS,
    FIELDS,
    TERSE,
    ChatTexts,
    function_schema,
    tool_schemas,
)
from medseg_gym.prompts import GRID, Coordinates
from medseg_gym.prompts.volumes import VOLUME_TOOLS, volume_call_names

VOLUME_SYSTEM = """\
You outline a structure in a medical scan, a stack of slices, by steering a segmentation tool. \
Every answer is one tool call; then you are shown a slice and an overview again with the mask so \
far.

The first image is the slice in view. The second is the overview: maximum projections of the scan \
along slices, rows and columns, side by side. In the middle and on the right slices run from top \
to bottom, and a yellow line marks the slice in view. Slices count from 0. {coordinates} The calls:
{calls}"""

VOLUME_CALLS = {
    "add_bbox": '<tool_call>{"name": "add_bbox", "arguments": {"slice": n, "bbox_2d": '
    "[x1, y1, x2, y2]}}</tool_call> encloses the structure on slice n, replaces an earlier box "
    "there and shows that slice.",
    "add_point": '<tool_call>{"name": "add_point", "arguments": {"slice": n, "point_2d": [x, y], '
    '"point_type": "positive"}}</tool_call> clicks on what is missing on slice n; "negative" on '
    "what does not belong.",
    "propagate_action": '<tool_call>{"name": "propagate_action", "arguments": {}}</tool_call> '
    "carries the masks of slices with boxes or clicks through the others.",
    "look_action": '<tool_call>{"name": "look_action", "arguments": {"slice": n}}</tool_call> '
    "shows slice n.",
    "undo_action": '<tool_call>{"name": "undo_action", "arguments": {}}</tool_call> takes the last '
    "prompt or propagation back.",
    "clear_action": CALLS["clear_action"],
    "stop_action": '<tool_call>{"name": "stop_action", "arguments": {}}</tool_call> accepts the '
    "mask and ends: stop as soon as the mask is good, or at once if the structure is not in the "
    "scan.",
}


@dataclass(frozen=True, kw_only=True)
class VolumeChatTexts(ChatTexts):
    """The words of the chat environment on volumes, see `ChatTexts`.

    Turns may also mention {slice} (in view), {last_slice} (the highest index) and {mask_slices}
    (how many slices have a mask).
    """

    fields: ClassVar[tuple[str, ...]] = (*FIELDS, "slice", "last_slice", "mask_slices")
    system: str = VOLUME_SYSTEM
    opening: str = (
        "Segment: {target}. The scan has slices 0 to {last_slice}. This is slice {slice}. You have "
        "at most {max_steps} calls."
    )
    turn: str = (
        "This is slice {slice} of 0 to {last_slice} with the mask so far, which is on "
        "{mask_slices} of them. {calls_left}."
    )
    refused: str = "That call changed nothing: {error}. This is slice {slice}. {calls_left}."
    calls: Mapping[str, str] = field(default_factory=lambda: dict(VOLUME_CALLS))

    @staticmethod
    def names(tools: Sequence[str]) -> tuple[str, ...]:
        """Names of the calls that a subset of the tools needs."""
        return volume_call_names(tools)


VOLUME_PRESETS = {
    "full": VolumeChatTexts(),
    "terse": VolumeChatTexts(
        system="",
        opening="{target}, {max_steps} calls, {slice} of {last_slice}.",
        turn="{steps_left} left, {slice} of {last_slice}.",
        refused="no change, {steps_left} left, {slice} of {last_slice}.",
        over=TERSE.over,
        think="",
    ),
}
"""Values of the option `texts` by name."""

_SLICE = {"type": "integer", "minimum": 0, "description": "index of the slice, from 0"}


def volume_tool_schemas(
    tools: Sequence[str] = VOLUME_TOOLS, coordinates: Coordinates = GRID
) -> list[dict[str, Any]]:
    """The tool calls as OpenAI's function schemas.

    Args:
        tools: Subset of `VOLUME_TOOLS`.
        coordinates: How places are written.
    """
    made = {one["function"]["name"]: one["function"] for one in tool_schemas(tools, coordinates)}
    schemas = []
    described: tuple[str, dict[str, Any]]
    for name in volume_call_names(tools):
        if name == "propagate_action":
            described = "Carry the masks of slices with prompts through the others.", {}
        elif name == "look_action":
            described = "Show a slice.", {"slice": _SLICE}
        else:
            arguments = made[name]["parameters"]["properties"]
            on_slice = {"slice": _SLICE} if name in ("add_bbox", "add_point") else {}
            described = made[name]["description"], {**on_slice, **arguments}
        schemas.append(function_schema(name, *described))
    return schemas
