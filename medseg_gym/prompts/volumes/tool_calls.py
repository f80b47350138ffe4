"""Tool call <-> prompt in a volume: the calls of images, with `slice` among their arguments.

`add_bbox` and `add_point` say on which slice; `look_action` too. `propagate_action`, `undo_action`,
`clear_action` and `stop_action` take nothing. Slices count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as brief

from medseg_gym.errors import PromptError
from medseg_gym.prompts.answers import Answer, Thinking, find_answer, read_prompt
from medseg_gym.prompts.call_shapes import plain_name
from medseg_gym.prompts.coordinates import GRID, Coordinates
from medseg_gym.prompts.tool_calls import TOOL_CALL_OF_TOOL, call_names, call_of, write_call
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint
from medseg_gym.prompts.volumes.types import (
    VOLUME_TOOLS,
    Look,
    Propagate,
    SlicePrompt,
    VolumePrompt,
)

CALL_OF_TOOL = {**TOOL_CALL_OF_TOOL, "propagate": "propagate_action", "look": "look_action"}
"""Tool call that stands for each tool of the array action."""


def volume_call_names(tools: Sequence[str] = VOLUME_TOOLS) -> tuple[str, ...]:
    """Names of the tool calls that a subset of `VOLUME_TOOLS` needs, each once."""
    return tuple(dict.fromkeys(CALL_OF_TOOL[tool] for tool in VOLUME_TOOLS if tool in tools))


def encode_volume_call(prompt: VolumePrompt, coordinates: Coordinates = GRID) -> str:
    """Write a prompt as a tool call; `read_volume_answer` reads it back.

    Args:
        prompt: Any.
        coordinates: How places are written.
    """
    if isinstance(prompt, SlicePrompt):
        name, arguments = call_of(prompt.prompt, coordinates)
        return write_call(name, {"slice": prompt.slice, **arguments})
    if isinstance(prompt, Look):
        return write_call("look_action", {"slice": prompt.slice})
    return write_call(f"{prompt.tool}_action", {})


def read_volume_answer(
    text: str,
    tools: Sequence[str] = VOLUME_TOOLS,
    thinking: Thinking = False,
    coordinates: Coordinates = GRID,
) -> Answer:
    """Read an answer by the rules of `prompts.read_answer`; a box or a click without slice is none.

    Whether the volume has such a slice is for its episode to judge.

    Args:
        text: The whole answer of the model.
        tools: Subset of `VOLUME_TOOLS` that may be used.
        thinking: See `read_answer`.
        coordinates: How places are written.

    Returns:
        The prompt, or why there is none. No text makes it raise.
    """
    flat = [tool for tool in TOOLS if tool in tools]

    def read(name: str, arguments: dict[str, object], repairs: list[str]) -> VolumePrompt:
        called = plain_name(name)
        called = CALL_OF_TOOL.get(called, called) if called in ("look", "propagate") else called
        names = volume_call_names(tools)
        if called in ("look_action", "propagate_action") and called in names:
            if called != name:
                repairs.append("another name")
            return Look(_slice(called, arguments)) if called == "look_action" else Propagate()
        try:
            prompt = read_prompt(name, arguments, flat, coordinates, repairs)
        except PromptError as error:
            told = str(error).replace(", ".join(call_names(flat)), ", ".join(names))
            raise PromptError(told) from None
        if isinstance(prompt, (AddBox, AddPoint)):
            called = "add_bbox" if isinstance(prompt, AddBox) else "add_point"
            return SlicePrompt(_slice(called, arguments), prompt)
        return prompt

    return find_answer(text, thinking, read)


def _slice(name: str, arguments: dict[str, object]) -> int:
    given = arguments.get("slice")
    value = given
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PromptError(
            f"slice of {name} must be the index of a slice, a whole number from 0, got "
            f"{brief(given)}"
        )
    return value
