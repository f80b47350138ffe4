"""Tool call <-> prompt, with the names and arguments of MedSAM-Agent (arXiv 2602.03320).

A call is `<tool_call>{"name": NAME, "arguments": {...}}</tool_call>` with integers 0..999 relative
to width and height. `add_bbox`, `add_point` and `stop_action` are MedSAM-Agent's; `undo_action`
and `clear_action` are this suite's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from reprlib import repr as brief
from typing import Any

from medseg_gym.errors import PromptError
from medseg_gym.prompts.grid import TOOL_CALL_BINS, to_cell, to_fraction
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint, Clear, Prompt, Stop, Undo

TOOL_CALL_NAMES = ("add_bbox", "add_point", "undo_action", "clear_action", "stop_action")
TOOL_CALL_OF_TOOL = {
    "box": "add_bbox",
    "positive_point": "add_point",
    "negative_point": "add_point",
    "undo": "undo_action",
    "clear": "clear_action",
    "stop": "stop_action",
}
"""Which call stands for a tool of the array action."""


def call_names(tools: Sequence[str]) -> tuple[str, ...]:
    """Names of the tool calls that a subset of `TOOLS` needs, each once."""
    return tuple(dict.fromkeys(TOOL_CALL_OF_TOOL[tool] for tool in TOOLS if tool in tools))


OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BARE: dict[str, Prompt] = {"undo_action": Undo(), "clear_action": Clear(), "stop_action": Stop()}


def encode_tool_call(prompt: Prompt) -> str:
    """Write a prompt as a tool call."""
    arguments: dict[str, Any] = {}
    if isinstance(prompt, AddBox):
        name = "add_bbox"
        corners = (prompt.x1, prompt.y1, prompt.x2, prompt.y2)
        arguments["bbox_2d"] = [to_cell(v, TOOL_CALL_BINS) for v in corners]
    elif isinstance(prompt, AddPoint):
        name = "add_point"
        arguments["point_2d"] = [to_cell(v, TOOL_CALL_BINS) for v in (prompt.x, prompt.y)]
        arguments["point_type"] = "positive" if prompt.positive else "negative"
    else:
        name = f"{prompt.tool}_action"
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>{call}</tool_call>"


def decode_tool_call(text: str) -> Prompt:
    """Read the first tool call in a text, to the letter; `read_answer` forgives more.

    The older names `add_positive_point` and `add_negative_point` with `x` and `y` are read too.

    Raises:
        PromptError: No call, not JSON, an unknown name, or unusable arguments. The message is
            written for the model that made the call.
    """
    # Plain searches: a regular expression backtracks for minutes over a model's runaway blanks.
    _, opened, rest = text.partition(OPEN)
    body, closed, _ = rest.partition(CLOSE)
    if not (opened and closed):
        raise PromptError("no <tool_call>...</tool_call> found; answer with one tool call")
    try:
        call = json.loads(body.strip())
    except (ValueError, RecursionError) as error:  # ValueError: an integer of 5000 digits, too
        raise PromptError(f"the tool call is not valid JSON: {error}") from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise PromptError('the tool call must be {"name": ..., "arguments": {...}}')
    name, arguments = call["name"], call.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise PromptError(f"arguments of {name} must be an object, got {brief(arguments)}")
    return prompt_of_call(name, arguments)


def prompt_of_call(name: str, arguments: dict[str, Any]) -> Prompt:
    """The prompt that a call with these arguments makes.

    Raises:
        PromptError: An unknown name or unusable arguments, in words for the model.
    """
    if name in _BARE:
        return _BARE[name]
    if name == "add_bbox":
        return AddBox(*_fractions(name, "bbox_2d", arguments.get("bbox_2d"), 4))
    if name == "add_point":
        kind = arguments.get("point_type")
        if kind not in ("positive", "negative"):
            raise PromptError(f'point_type must be "positive" or "negative", got {brief(kind)}')
        x, y = _fractions(name, "point_2d", arguments.get("point_2d"), 2)
        return AddPoint(x, y, positive=kind == "positive")
    if name in ("add_positive_point", "add_negative_point"):
        x, y = _fractions(name, "x, y", [arguments.get("x"), arguments.get("y")], 2)
        return AddPoint(x, y, positive=name == "add_positive_point")
    raise PromptError(f"unknown tool {brief(name)}; use one of {', '.join(TOOL_CALL_NAMES)}")


def _fractions(name: str, argument: str, values: Any, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise PromptError(f"{argument} of {name} must hold {count} integers, got {brief(values)}")
    for value in values:
        whole = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not whole or value != value // 1 or not 0 <= value < TOOL_CALL_BINS:
            raise PromptError(
                f"{argument} of {name} must hold integers 0..{TOOL_CALL_BINS - 1}, "
                f"got {brief(value)}"
            )
    return [to_fraction(int(value), TOOL_CALL_BINS) for value in values]
