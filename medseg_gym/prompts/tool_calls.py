"""Tool call <-> prompt, with the names and arguments of MedSAM-Agent (arXiv 2602.03320).

A call is `<tool_call>{"name": NAME, "arguments": {...}}</tool_call>`; places are written as
`Coordinates` says, by default as integers 0..999 relative to width and height. `add_bbox`,
`add_point` and `stop_action` are MedSAM-Agent's; `undo_action` and `clear_action` are this suite's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from medseg_gym.prompts.coordinates import GRID, Coordinates
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint, Prompt

TOOL_CALL_NAMES = ("add_bbox", "add_point", "undo_action", "clear_action", "stop_action")
TOOL_CALL_OF_TOOL = {
    "box": "add_bbox",
    "positive_point": "add_point",
    "negative_point": "add_point",
    "undo": "undo_action",
    "clear": "clear_action",
    "stop": "stop_action",
}
"""Tool call that stands for each tool of the array action."""

VOLUME_CALL_NAMES = ("propagate_action", "look_action")
"""Calls that only volumes have, see `prompts.volumes`."""

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def call_names(tools: Sequence[str]) -> tuple[str, ...]:
    """Names of the tool calls that a subset of `TOOLS` needs, each once."""
    return tuple(dict.fromkeys(TOOL_CALL_OF_TOOL[tool] for tool in TOOLS if tool in tools))


def encode_tool_call(prompt: Prompt, coordinates: Coordinates = GRID) -> str:
    """Write a prompt as a tool call; `read_answer` reads it back.

    Args:
        prompt: Any.
        coordinates: How places are written.
    """
    return write_call(*call_of(prompt, coordinates))


def call_of(prompt: Prompt, coordinates: Coordinates = GRID) -> tuple[str, dict[str, object]]:
    """Name and arguments of the tool call that stands for a prompt."""
    arguments: dict[str, object] = {}
    if isinstance(prompt, AddBox):
        name = "add_bbox"
        corners = (prompt.x1, prompt.y1, prompt.x2, prompt.y2)
        arguments["bbox_2d"] = [coordinates.write(v) for v in corners]
    elif isinstance(prompt, AddPoint):
        name = "add_point"
        arguments["point_2d"] = [coordinates.write(v) for v in (prompt.x, prompt.y)]
        arguments["point_type"] = "positive" if prompt.positive else "negative"
    else:
        name = f"{prompt.tool}_action"
    return name, arguments


def write_call(name: str, arguments: object) -> str:
    """A call with whatever arguments a model gave, in the words of an answer."""
    return f"{OPEN}{json.dumps({'name': name, 'arguments': arguments})}{CLOSE}"
