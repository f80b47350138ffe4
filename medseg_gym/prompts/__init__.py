"""Prompts, the actions of an agent, and codecs that write them as arrays and as tool calls.

A prompt holds fractions of width and height in [0, 1]; a codec puts them on a grid of cells, and
`Coordinates` says how a model writes them. `read_answer` is the one reader of what models say.
"""

from medseg_gym.errors import PromptError
from medseg_gym.prompts.answers import Answer, Thinking, read_answer
from medseg_gym.prompts.array_codec import ArrayCodec
from medseg_gym.prompts.coordinates import COORDINATES, GRID, Coordinates
from medseg_gym.prompts.grid import TOOL_CALL_BINS
from medseg_gym.prompts.tool_calls import (
    TOOL_CALL_NAMES,
    TOOL_CALL_OF_TOOL,
    call_names,
    encode_tool_call,
    write_call,
)
from medseg_gym.prompts.types import (
    TOOLS,
    AddBox,
    AddPoint,
    Clear,
    Prompt,
    Stop,
    Undo,
    answered_tools,
)

__all__ = [
    "COORDINATES",
    "GRID",
    "TOOLS",
    "TOOL_CALL_BINS",
    "TOOL_CALL_NAMES",
    "TOOL_CALL_OF_TOOL",
    "AddBox",
    "AddPoint",
    "Answer",
    "ArrayCodec",
    "Clear",
    "Coordinates",
    "Prompt",
    "PromptError",
    "Stop",
    "Thinking",
    "Undo",
    "answered_tools",
    "call_names",
    "encode_tool_call",
    "read_answer",
    "write_call",
]
