"""Find the calls in an answer, in the dialects that models are trained on.

A dialect is mostly a pair of marks with something between them, so marks are found first, all by
one expression, and what stands between is read by its form, whatever the marks are: JSON, a name
before JSON, elements with parameters, keys and values, a call of Python. Without any mark, JSON
objects that begin like a call count wherever they stand, and calls of Python where nothing but
their brackets and fences follows, so that a sentence about a call is none.

Each pass goes through the text once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from medseg_gym.errors import PromptError
from medseg_gym.prompts.call_shapes import CALLABLE, calls_in, plain_name, python_call
from medseg_gym.prompts.elements import read_elements
from medseg_gym.prompts.lenient_json import UnreadableJson, read_call_arguments, read_value
from medseg_gym.prompts.marks import MARK, NAME, Block, find_blocks

_KNOWN = "|".join(sorted(CALLABLE, key=len, reverse=True))
_OWNER = r"(?:functions?\.|default_api\.|tools?\.)?"  # of a name

_SEPARATORS = r"(?:<\|tool_sep\|>|<\|tool_call_argument_begin\|>|\[ARGS\]|\[CALL_ID\]\w{1,64}|\s)"
_NAMED = re.compile(
    rf"\s*(?:(?P<braces>call:)|function\s*<\|tool_sep\|>)?(?P<name>{_OWNER}{NAME})(?::\d+)?"
    rf"{_SEPARATORS}{{0,64}}(?:```[a-z]{{0,8}}\s{{0,16}})?(?=\{{)"
)
_BARE_NAME = re.compile(rf"\s*(?P<name>{_OWNER}{NAME})(?:\(\))?\s*")
_KEYS = re.compile(rf"\s*(?P<name>{_OWNER}{NAME})\s*(?=<arg_key>)")
_PYTHON = r"(?:print\(|await\s|[A-Za-z_]\w{0,31}\s{0,4}=\s{0,4})?"
_CALL = re.compile(rf"\s*(?P<name>{_OWNER}{NAME})\(")
_PYTHON_UNIT = re.compile(
    rf"^[ \t]{{0,64}}(?P<list>\[\s{{0,16}})?{_PYTHON}(?P<name>{_OWNER}{NAME})\(", re.MULTILINE
)
_JSON_KEYS = (
    "name|function|tool_call|tool_calls|function_call|type|tool_name|tool|action|recipient_name"
    f"|bbox_2d|point_2d|box_2d|parameters|arguments|id|tool_call_id|{_KNOWN}"
)
_JSON = re.compile(rf"\{{\s*[\"'\u201c]?(?:{_JSON_KEYS})\b")
_BARE = re.compile(
    rf"(?P<json>\{{\s*[\"'\u201c]?(?:{_JSON_KEYS})\b)"
    rf"|^[ \t]{{0,64}}(?:(?P<braces>call:){_OWNER}|{_OWNER})(?P<name>{_KNOWN})(?::\d+)?\s{{0,16}}"
    rf"(?:```[a-z]{{0,8}}\s{{0,16}})?(?=\{{)"
    rf"|(?P<python>^[ \t]{{0,64}}(?:\[\s{{0,16}})?{_PYTHON}{_OWNER}(?:{_KNOWN})\()",
    re.MULTILINE,
)
_NOISE = re.compile(r"(?:[\s\])},;.]+|`+(?:\w{0,16}\n)?|</\w{1,32}>)*")  # behind a call
_COMMA, _BRACKET, _END = re.compile(r"\s*,"), re.compile(r"\s*\]"), re.compile(r"\s*\Z")
_AMONG_WORDS = "the call stands among words; answer with one tool call and nothing behind it"
_MOST = 8  # candidates that anyone looks at
_QUOTES = re.compile(r'<\|"\|>|<escape>')


@dataclass
class Candidate:
    """A piece of an answer that could be a call.

    Args:
        call: `{"name": ..., "arguments": ...}` or a shape that `call_shapes.read_call` knows.
        error: Why there is none, in words for the model; "" where there is one.
        repairs: What was forgiven, in a few words each.
    """

    call: Any = None
    error: str = ""
    repairs: tuple[str, ...] = ()


def candidates(text: str) -> Iterator[Candidate]:
    """Yield the pieces of an answer that could be calls, in order.

    Args:
        text: An answer without thoughts, with the marks of DeepSeek in plain characters
            (`plain_marks`).
    """
    blocks = find_blocks(text)
    first = next(blocks, None)
    if first is None:
        yield from _without_marks(text)
        return
    yield from _read_block(first)
    for block in blocks:
        yield from _read_block(block)


# what stands between marks ----------------------------------------------------------------------
def _read_block(block: Block) -> Iterator[Candidate]:
    body, cut = block.body, not block.closed
    if block.name:
        yield _named_block(block)
    elif named := _NAMED.match(body):
        yield _with_json(named, body, cut, block.repairs)[0]
    elif keys := _KEYS.match(body):
        yield _with_elements(keys["name"], body[keys.end() :], block)
    elif block.closed and (bare := _BARE_NAME.fullmatch(body)):
        yield _bare_name(bare["name"], block)
    elif (unit := _PYTHON_UNIT.search(body)) and "{" not in body[: unit.start()]:
        yield from _python_calls(body, unit, block)
    elif bare := _BARE_NAME.fullmatch(body):
        yield _bare_name(bare["name"], block)
    else:
        yield from _json_calls(block)


def _named_block(block: Block) -> Candidate:
    body, cut = block.body, not block.closed
    begin = body.find("{")
    if begin >= 0 and body[:begin].strip().strip("`").strip() in ("", "json"):
        try:
            arguments, _, forgiven = read_value(body, begin, cut)
        except UnreadableJson as error:
            return Candidate(error=f"the tool call is not valid JSON: {error}")
        call = {"name": block.name, "arguments": arguments}
        return Candidate(call, "", (*block.repairs, *forgiven))
    return _with_elements(block.name, body, block)


def _with_elements(name: str, body: str, block: Block) -> Candidate:
    if not block.closed:
        return Candidate(error=f"the call of {brief(name)} breaks off before its closing mark")
    try:
        arguments = read_elements(body)
    except ValueError as error:
        return Candidate(error=f"arguments of {brief(name)} cannot be read: {error}")
    return Candidate({"name": name, "arguments": arguments}, "", block.repairs)


def _with_json(
    named: re.Match[str], text: str, cut: bool, repairs: tuple[str, ...]
) -> tuple[Candidate, int]:
    """A call whose name stands before its arguments, and where it ends."""
    at = named.end()
    if named["braces"]:  # strings of Gemma stand in marks of their own
        text, at = _QUOTES.sub('"', text[at:]), 0
    try:
        arguments, end, forgiven = read_value(text, at, cut)
    except UnreadableJson as error:
        return Candidate(error=f"the tool call is not valid JSON: {error}"), error.at
    call = {"name": named["name"], "arguments": arguments}
    return Candidate(call, "", (*repairs, *forgiven)), len(text) if named["braces"] else end


def _bare_name(name: str, block: Block) -> Candidate:
    if plain_name(name) not in CALLABLE:
        return Candidate(error=f"the tool call is not valid JSON: {brief(name)} holds no object")
    if not block.closed:
        return Candidate(error=f"the call of {brief(name)} breaks off before its closing mark")
    return Candidate({"name": name}, "", (*block.repairs, "a bare name"))


def _json_calls(block: Block) -> Iterator[Candidate]:
    body, cut = block.body, not block.closed
    begin = len(body) - len(body.lstrip())
    repairs = list(block.repairs)
    if body[begin : begin + 1] not in ("{", "["):
        begin = body.find("{")
        repairs.append("words before the call")
    if begin < 0:
        problem = brief(body.strip())
        yield Candidate(error=f"the tool call is not valid JSON: {problem} holds no object")
        return
    try:
        value, end, forgiven = read_value(body, begin, cut)
    except UnreadableJson as error:
        yield Candidate(error=f"the tool call is not valid JSON: {error}")
        end = body.find("}", error.at) + 1 or len(body)  # what is inside of it is no call
    else:
        separator = _JSON.search(body, end)
        if not separator and body[end:].strip():
            repairs.append("words after the call")
        for call in calls_in(value, repairs):
            yield Candidate(call, "", (*repairs, *forgiven))
    yield from _scan_json(body, end, cut, tuple(repairs))


def _scan_json(text: str, at: int, cut: bool, repairs: tuple[str, ...]) -> Iterator[Candidate]:
    """Objects that begin like a call, from a place on; what is inside of one is not looked at."""
    while begin := _JSON.search(text, at):
        matched, at = _json_at(text, begin.start(), cut, repairs)
        yield from matched


def _json_at(
    text: str, at: int, cut: bool, repairs: tuple[str, ...]
) -> tuple[list[Candidate], int]:
    try:
        value, end, forgiven = read_value(text, at, cut)
    except UnreadableJson as error:
        error_text = f"the tool call is not valid JSON: {error}"
        inner = text.find("}", max(error.at, at + 1))  # what is inside of it is no call
        return [Candidate(error=error_text)], inner + 1 if inner >= 0 else len(text)
    listed = list(repairs)
    matched = [Candidate(call, "", (*listed, *forgiven)) for call in calls_in(value, listed)]
    return matched, end


def _python_calls(body: str, unit: re.Match[str], block: Block) -> Iterator[Candidate]:
    at: int | None = unit.start()
    while at is not None and (matched := _PYTHON_UNIT.match(body, at)):
        calls, end = _python_unit(body, matched, not block.closed, block.repairs)
        yield from calls
        following = _PYTHON_UNIT.search(body, max(end, matched.end()))
        at = following.start() if following else None


def _python_unit(
    text: str, unit: re.Match[str], cut: bool, repairs: tuple[str, ...]
) -> tuple[list[Candidate], int]:
    """The call, or the list of calls, that begins at a match of `_PYTHON_UNIT`; and its end."""
    matched: list[Candidate] = []
    name, at = unit["name"], unit.end()
    while True:
        try:
            plain, named, at, forgiven = read_call_arguments(text, at, cut=True)
            call = python_call(name, plain, named)
        except UnreadableJson as error:
            problem = f"the call of {brief(name)} cannot be read: {error}"
            return [Candidate(error=problem)], error.at
        except PromptError as error:
            matched.append(Candidate(error=str(error)))
        else:
            matched.append(Candidate(call, "", (*repairs, *forgiven)))
        if not unit["list"]:
            return matched, at
        separator = _COMMA.match(text, at)
        after = separator.end() if separator else at
        if separator and (following := _CALL.match(text, after)):
            name, at = following["name"], following.end()
            continue
        closing = _BRACKET.match(text, after)
        if closing is None and (cut or not _END.match(text, after)):
            return [Candidate(error="the list of calls breaks off before its bracket")], after
        return matched, closing.end() if closing else after


# without marks ----------------------------------------------------------------------------------
def _without_marks(text: str) -> Iterator[Candidate]:
    text = MARK.sub("\n", text)  # ends of a turn
    at = 0
    waiting: list[Candidate] = []  # calls of Python count if nothing but calls follows
    among_words = False
    while begin := _BARE.search(text, at):
        if begin["python"]:
            matched, at = _python_unit(text, _unit_at(text, begin.start()), True, ("no tags",))
            waiting = waiting if among_words else [*waiting, *matched][:_MOST]
            at = max(at, begin.end())
            rest = _noise_end(text, at)
            if rest == len(text):
                yield from waiting
                return
            following = _BARE.match(text, _line_of(text, rest))
            if not (following and following["python"]):
                waiting, among_words = [Candidate(error=_AMONG_WORDS)], True
            continue
        yield from waiting
        waiting = []
        if begin["json"]:
            matched, at = _json_at(text, begin.start(), True, ("no tags",))
        else:
            one, at = _with_json(begin, text, True, ("no tags",))
            matched, at = [one], max(at, begin.end())
        yield from matched
    yield from waiting


def _unit_at(text: str, at: int) -> re.Match[str]:
    unit = _PYTHON_UNIT.match(text, at)
    assert unit is not None  # every call of Python that `_BARE` finds is one
    return unit


def _line_of(text: str, at: int) -> int:
    """Return where the blanks before a place in its line begin."""
    while at and text[at - 1] in " \t":
        at -= 1
    return at


def _noise_end(text: str, at: int) -> int:
    """Return where something other than brackets, fences and marks begins."""
    noise = _NOISE.match(text, at)
    assert noise is not None
    return noise.end()
