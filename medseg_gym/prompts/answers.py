"""A model's whole answer -> one prompt, as forgiving as the meaning allows.

The rules, in order:

1. Thoughts are taken out (`thoughts`: `<think>`, `<reasoning>` and their kin, or what stands before
   a lone `</think>`); calls in them count for nothing, and a thought that does not end takes all
   the rest. An answer with a thought is refused only where that is asked for.
2. Candidates are found in any of the usual dialects (`marks`, `dialects`); the first eight are
   looked at.
3. The first candidate that can be read is the answer. It is the one that was said first and is
   complete; to choose among several by what they ask for would be a guess. That other calls were
   left alone stands in `repairs`, since `info["error"]` says why a step changed nothing. The same
   call again is no other call. If none can be read, the answer is refused with what is wrong with
   the first.
4. What is cut off inside a call is refused, for it could mean anything. A closing mark may be
   missing behind what is complete without it, and brackets within marks that do close.
5. Names: those of the tool calls in any case, the older `add_positive_point` and
   `add_negative_point`, and the tools of the array action ("box", "stop", ...), perhaps behind
   "functions.". Arguments may stand under "arguments", "parameters" or beside the name, as an
   object or as JSON in a string; a call may be wrapped in "function" or "tool_call" or a list
   (`call_shapes`). A `bbox_2d` or `point_2d` without a name is a box or a positive point.
6. Points are positive, foreground or 1, negative, background or 0.
7. Coordinates (`coordinates`) may be numbers in strings or have decimals (they are rounded), may
   come nested, in pairs ([[x1, y1], [x2, y2]]) or by name and may be 1000, which is 999. Anything
   farther out, and numbers that are all within 0..1 and not whole (fractions or cells?), is
   refused; so are several places in one call, and a key twice with different values.

Every answer takes time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from reprlib import repr as brief
from typing import Any, Literal

from medseg_gym.errors import PromptError
from medseg_gym.prompts.call_shapes import OLDER, plain_name, point_type, read_call
from medseg_gym.prompts.coordinates import GRID, Coordinates
from medseg_gym.prompts.dialects import Candidate, candidates
from medseg_gym.prompts.marks import plain_marks
from medseg_gym.prompts.thoughts import take_out_thoughts
from medseg_gym.prompts.tool_calls import TOOL_CALL_OF_TOOL, call_names
from medseg_gym.prompts.types import TOOLS, AddBox, AddPoint, Clear, Prompt, Stop, Undo

Thinking = bool | Literal["refuse"]
"""Thoughts are invited (True), read past (False), or make an answer unreadable ("refuse")."""

_CANDIDATES = 8
_BARE: dict[str, Prompt] = {"undo_action": Undo(), "clear_action": Clear(), "stop_action": Stop()}


@dataclass(frozen=True)
class Answer:
    """An answer as it was read.

    Args:
        prompt: What it asks for; None if it cannot be read. A `VolumePrompt` in a volume.
        error: Why it cannot be read, in words for the model; "" if it can.
        repairs: What was forgiven or left alone, in a few words each.
    """

    prompt: Any
    error: str = ""
    repairs: tuple[str, ...] = ()


def read_answer(
    text: str,
    tools: Sequence[str] = TOOLS,
    thinking: Thinking = False,
    coordinates: Coordinates = GRID,
) -> Answer:
    """Read an answer; see the module for the rules.

    Args:
        text: The whole answer of the model.
        tools: Subset of `TOOLS` that may be used.
        thinking: "refuse" refuses an answer with a thought in it; else thoughts are read past.
        coordinates: How places are written.

    Returns:
        The prompt, or why there is none. No text makes it raise.
    """

    def read(name: str, arguments: dict[str, object], repairs: list[str]) -> Prompt:
        return read_prompt(name, arguments, tools, coordinates, repairs)

    return find_answer(text, thinking, read)


def find_answer(
    text: str,
    thinking: Thinking,
    read: Callable[[str, dict[str, object], list[str]], Any],
) -> Answer:
    """Find the first call of an answer that can be read, see the module.

    Args:
        text: The whole answer.
        thinking: See `read_answer`.
        read: Gives the prompt of a name and its arguments, and adds what it forgives to the list;
            raises PromptError in words for the model.
    """
    spoken = take_out_thoughts(plain_marks(text))
    if thinking == "refuse" and any(thought.strip() for thought in spoken.thoughts):
        return Answer(None, "thinking is not allowed here; answer with one tool call alone")
    first_error, others = "", 0
    answer: Answer | None = None
    for candidate in islice(candidates(spoken.text), _CANDIDATES):
        try:
            prompt, repairs = _read_candidate(candidate, read)
        except PromptError as error:
            first_error = first_error or str(error)
            continue
        if answer is None:
            if first_error:
                repairs = [*repairs, "an unreadable call before it"]
            answer = Answer(prompt, "", tuple(dict.fromkeys(repairs)))
        elif prompt != answer.prompt:
            others += 1
    if answer is not None:
        ignored = (f"{others} other call{'s' if others > 1 else ''} ignored",) if others else ()
        return Answer(answer.prompt, "", (*answer.repairs, *ignored))
    if not first_error:
        first_error = "no <tool_call>...</tool_call> found; answer with one tool call"
        if spoken.closer:
            first_error = (
                f"the thought was not closed with {spoken.closer}, so there was no tool call"
            )
    return Answer(None, first_error)


def _read_candidate(
    candidate: Candidate, read: Callable[[str, dict[str, object], list[str]], Any]
) -> tuple[Any, list[str]]:
    if candidate.error:
        raise PromptError(candidate.error)
    repairs = list(candidate.repairs)
    name, arguments = read_call(candidate.call, repairs)
    return read(name, arguments, repairs), repairs


def _names(tools: Sequence[str]) -> list[str]:
    """Every name that may be called, those told to the model first."""
    older = [name for name in OLDER if name.removeprefix("add_") in tools]
    return [*call_names(tools), *older, *(tool for tool in TOOLS if tool in tools)]


def read_prompt(
    name: str,
    arguments: dict[str, object],
    tools: Sequence[str],
    coordinates: Coordinates,
    repairs: list[str],
) -> Prompt:
    """Read a call by its name and arguments.

    Args:
        name: As the model wrote it.
        arguments: By name.
        tools: Subset of `TOOLS` that may be used.
        coordinates: How places are written.
        repairs: Gets what was forgiven.

    Raises:
        PromptError: What is wrong, in words for the model.
    """
    plain, called = name.strip().lower(), plain_name(name)
    if called not in _names(tools):
        known = ", ".join(call_names(tools))
        raise PromptError(f"unknown tool {brief(name)}; use one of {known}")
    if plain != name:
        repairs.append("capitals or blanks in the name")
    if called != plain:
        repairs.append("an owner or a number in the name")
    kind: str | None = None
    if called in OLDER or called in TOOL_CALL_OF_TOOL:
        tool = called.removeprefix("add_")
        older = called in OLDER and "point_2d" not in arguments
        repairs.append("an older name" if older else "another name")
        called = TOOL_CALL_OF_TOOL[tool]
        kind = tool.removesuffix("_point") if called == "add_point" else None
    if called in _BARE:
        return _BARE[called]
    if called == "add_bbox":
        values = _place(arguments, "bbox_2d", ("x1", "y1", "x2", "y2"))
        return AddBox(*coordinates.read("bbox_2d of add_bbox", values, 4, repairs))
    values = _place(arguments, "point_2d", ("x", "y"))
    kind = kind or _point_kind(arguments, repairs)
    if f"{kind}_point" not in tools:
        raise PromptError(f"point_type {kind!r} is not allowed here")
    x, y = coordinates.read("point_2d of add_point", values, 2, repairs)
    return AddPoint(x, y, positive=kind == "positive")


def _place(arguments: dict[str, object], name: str, corners: tuple[str, ...]) -> object:
    """The value of an argument, or of those that stand for it one by one."""
    if name not in arguments and any(corner in arguments for corner in corners):
        return [arguments.get(corner) for corner in corners]
    return arguments.get(name)


def _point_kind(arguments: dict[str, object], repairs: list[str]) -> str:
    given = arguments.get("point_type", arguments.get("label"))
    kind = point_type(given)
    if kind is None:
        raise PromptError(f'point_type must be "positive" or "negative", got {brief(given)}')
    if kind != arguments.get("point_type"):
        repairs.append("another word for point_type")
    return kind
