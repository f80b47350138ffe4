"""A model's whole answer -> one prompt, as forgiving as the meaning allows.

The rules, in order:

1. Thoughts (`<think>...</think>`, or what stands before a lone `</think>`) are taken out; calls in
   them count for nothing. Where thinking is not allowed, an answer with a thought in it is refused.
2. Candidates are the first eight `<tool_call>` blocks; a block ends at `</tool_call>`, at the next
   `<tool_call>` or with the text. Without any tag, the first eight JSON objects that begin like a
   call are candidates, in a code fence or not.
3. The first candidate that can be read is the answer; the others are left alone. If none can, the
   answer is refused with what is wrong with the first.
4. A candidate is read as JSON, else as `lenient_json` reads it. What is cut off in the middle of a
   number or a string is refused, for it could mean anything; brackets that are only not closed are
   closed.
5. Names: those of the tool calls in any case, the older `add_positive_point` and
   `add_negative_point`, and the tools of the array action ("box", "stop", ...). Arguments may stand
   under "arguments", "parameters" or beside the name, as an object or as JSON in a string; a call
   may be wrapped in "function" or "tool_call" or a list.
6. Coordinates may be numbers in strings or have decimals (they are rounded), may come in pairs
   ([[x1, y1], [x2, y2]]) and may be 1000, which is 999. Anything farther out, and four or two
   decimals that are all within 0..1 (fractions or cells?), is refused.

Every answer takes time in proportion to its length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from medseg_gym.errors import PromptError
from medseg_gym.prompts.grid import TOOL_CALL_BINS
from medseg_gym.prompts.lenient_json import read_lenient_json
from medseg_gym.prompts.tool_calls import (
    CLOSE,
    OPEN,
    TOOL_CALL_OF_TOOL,
    call_names,
    prompt_of_call,
)
from medseg_gym.prompts.types import TOOLS, Prompt

_CANDIDATES = 8
_THINK, _THOUGHT = "<think>", "</think>"
_CALL_BEGINS = re.compile(r"\{\s*[\"'\u201c]?(?:name|function|tool_call|type)\b")
_OLDER = ("add_positive_point", "add_negative_point")
_WRAPPERS = ("function", "tool_call", "function_call")
_ARGUMENTS = ("arguments", "parameters", "args")
_BESIDE = ("name", "type", "id", *_ARGUMENTS)


@dataclass(frozen=True)
class Answer:
    """What was made of an answer.

    Args:
        prompt: What it asks for; None if it cannot be read.
        error: Why it cannot be read, in words for the model; "" if it can.
        repairs: What was forgiven, in a few words each.
    """

    prompt: Prompt | None
    error: str = ""
    repairs: tuple[str, ...] = ()


def read_answer(text: str, tools: Sequence[str] = TOOLS, thinking: bool = False) -> Answer:
    """Read an answer; see the module for the rules.

    Args:
        text: All that the model said.
        tools: Subset of `TOOLS` that may be used.
        thinking: Whether thoughts are allowed.

    Returns:
        The prompt, or why there is none. No text makes it raise.
    """
    said, thoughts, closed = _take_out_thoughts(text)
    if any(thought.strip() for thought in thoughts) and not thinking:
        return Answer(None, "thinking is not allowed here; answer with one tool call alone")
    first_error = ""
    for body, cut, repairs in _candidates(said):
        try:
            prompt, more = _read_candidate(body, cut, tools)
        except PromptError as error:
            first_error = first_error or str(error)
        else:
            if first_error:
                repairs = [*repairs, "an unreadable call before it"]
            return Answer(prompt, "", tuple(dict.fromkeys([*repairs, *more])))
    if not first_error:
        first_error = "no <tool_call>...</tool_call> found; answer with one tool call"
        if not closed:
            first_error = f"the thought was not closed with {_THOUGHT}, so there was no tool call"
    return Answer(None, first_error)


def _take_out_thoughts(text: str) -> tuple[str, list[str], bool]:
    """What was said, what was thought, and whether the last thought ended."""
    said: list[str] = []
    thoughts: list[str] = []
    at = 0
    lone = text.find(_THOUGHT)
    opened = text.find(_THINK)
    if lone >= 0 and not 0 <= opened < lone:
        thoughts.append(text[:lone])  # a chat template had opened it already
        at = lone + len(_THOUGHT)
    while True:
        begin = text.find(_THINK, at)
        if begin < 0:
            return "".join([*said, text[at:]]), thoughts, True
        said.append(text[at:begin])
        end = text.find(_THOUGHT, begin)
        thoughts.append(text[begin + len(_THINK) : end if end >= 0 else len(text)])
        if end < 0:
            return "".join(said), thoughts, False
        at = end + len(_THOUGHT)


def _candidates(text: str) -> Iterator[tuple[str, bool, list[str]]]:
    """(body, whether it may be cut off, repairs) of what could be a call."""
    at = text.find(OPEN)
    if at < 0:
        for match, _ in zip(_CALL_BEGINS.finditer(text), range(_CANDIDATES), strict=False):
            end = text.find(CLOSE, match.start())
            yield text[match.start() : end if end >= 0 else len(text)], end < 0, ["no tags"]
        return
    found = 0
    while at >= 0 and found < _CANDIDATES:
        begin = at + len(OPEN)
        at = text.find(OPEN, begin)
        body = text[begin : at if at >= 0 else len(text)]
        end = body.find(CLOSE)
        if not body.strip() and at >= 0:
            continue  # a tag within a tag
        found += 1
        yield (body[:end], False, []) if end >= 0 else (body, at < 0, ["no closing tag"])


def _read_candidate(body: str, cut: bool, tools: Sequence[str]) -> tuple[Prompt, list[str]]:
    repairs: list[str] = []
    try:
        call = json.loads(body.strip())
    except (ValueError, RecursionError):
        begin = body.find("{")
        bare = body.strip().removesuffix("()").strip().lower()
        if begin < 0 and bare in _names(tools):
            call, repairs = {"name": bare}, ["a bare name"]
        elif begin < 0:
            raise PromptError(
                f"the tool call is not valid JSON: {brief(body.strip())} holds no object"
            ) from None
        else:
            try:
                call, repairs = read_lenient_json(body[begin:], cut)
            except ValueError as error:
                raise PromptError(f"the tool call is not valid JSON: {error}") from None
            repairs = [*repairs, *(["words before the call"] if body[:begin].strip() else [])]
            repairs = repairs or ["words after the call"]
    name, arguments = _unwrap(call, repairs)
    return _prompt(name, arguments, tools, repairs), repairs


def _names(tools: Sequence[str]) -> list[str]:
    """Every name that may be called, those told to the model first."""
    older = [name for name in _OLDER if name.removeprefix("add_") in tools]
    return [*call_names(tools), *older, *(tool for tool in TOOLS if tool in tools)]


def _unwrap(call: Any, repairs: list[str]) -> tuple[str, dict[str, Any]]:
    if isinstance(call, list) and call:
        call = call[0]
        repairs.append("a list around the call")
    for wrapper in _WRAPPERS:
        if isinstance(call, dict) and isinstance(call.get(wrapper), dict):
            call = call[wrapper]
            repairs.append(f"{wrapper!r} around the call")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise PromptError('the tool call must be {"name": ..., "arguments": {...}}')
    name = call["name"]
    key = next((key for key in _ARGUMENTS if key in call), None)
    arguments = call[key] if key else {k: v for k, v in call.items() if k not in _BESIDE}
    if key not in (None, "arguments") or (key is None and arguments):
        repairs.append("arguments in another place")
    if isinstance(arguments, str):
        try:
            arguments, _ = read_lenient_json(arguments) if arguments.strip() else ({}, [])
        except ValueError as error:
            raise PromptError(f"arguments of {brief(name)} are not valid JSON: {error}") from None
        repairs.append("arguments in a string")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise PromptError(f"arguments of {brief(name)} must be an object, got {brief(arguments)}")
    return name, arguments


def _prompt(
    name: str, arguments: dict[str, Any], tools: Sequence[str], repairs: list[str]
) -> Prompt:
    called, official = name.strip().lower(), call_names(tools)
    if called not in _names(tools):
        raise PromptError(f"unknown tool {brief(name)}; use one of {', '.join(official)}")
    if called != name:
        repairs.append("capitals or blanks in the name")
    arguments = dict(arguments)
    if called in TOOL_CALL_OF_TOOL or (called in _OLDER and "point_2d" in arguments):
        tool = called.removeprefix("add_")
        called = TOOL_CALL_OF_TOOL[tool]
        if called == "add_point":
            arguments["point_type"] = tool.removesuffix("_point")
        repairs.append("another name")
    if called in _OLDER:
        repairs.append("an older name")
        arguments["x"], arguments["y"] = _tidy([arguments.get("x"), arguments.get("y")], 2, repairs)
    for place, count in (("bbox_2d", 4), ("point_2d", 2)):
        if isinstance(arguments.get(place), list):
            arguments[place] = _tidy(arguments[place], count, repairs)
    kind = arguments.get("point_type")
    if isinstance(kind, str) and kind != kind.strip().lower():
        arguments["point_type"] = kind.strip().lower()
        repairs.append("capitals or blanks in point_type")
    prompt = prompt_of_call(called, arguments)
    if prompt.tool not in tools:
        raise PromptError(f"point_type {kind!r} is not allowed here")
    return prompt


def _tidy(values: list[Any], count: int, repairs: list[str]) -> list[Any]:
    """Coordinates as whole numbers where that is what was meant, else as they are."""
    if count == 4 and len(values) == 2 and all(isinstance(v, list) for v in values):
        values = [*values[0], *values[1]]
        repairs.append("coordinates in pairs")
    if len(values) != count:
        return values
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        return values
    found = [number for number in numbers if number is not None]
    if all(0 <= n <= 1 for n in found) and any(n % 1 for n in found):
        raise PromptError(
            f"coordinates are whole numbers 0..{TOOL_CALL_BINS - 1}, not fractions; "
            f"got {brief(values)}"
        )
    if not all(-0.5 <= n <= TOOL_CALL_BINS for n in found):
        return values
    whole = [min(max(round(n), 0), TOOL_CALL_BINS - 1) for n in found]
    if whole != values or any(isinstance(value, bool) for value in values):
        repairs.append("coordinates rounded")
    return whole


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) < 20:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, (int, float)) and abs(value) < 1e6 and math.isfinite(value):
        return float(value)
    return None
