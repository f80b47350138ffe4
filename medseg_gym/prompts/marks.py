"""The marks that models put round their calls, and the text between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME = r"[A-Za-z_][\w.\-]{0,63}"
"""Of a call."""

MARK = re.compile(
    # <tool_call>, </tool_calls>, <|tool_calls_section_begin|>, <minimax:tool_call>, <tool_call|>
    r"<(?P<before>[|/]{0,2})(?P<owner>(?:[a-z]{1,12}[:_|])?)(?:tool_?calls?|function_?calls?)"
    r"(?:_section)?(?:_(?P<edge>start|begin|end))?(?P<after>\|?)>"
    # <function=NAME>, <invoke name="NAME">
    rf"|<(?:[a-z]{{1,12}}:|\|[a-z]{{1,12}}\|)?(?:function|invoke|tool)(?:\s{{1,4}}name)?\s{{0,4}}="
    rf"\s{{0,4}}[\"']?(?P<element>{NAME})[\"']?[^<>{{}}\[\]]{{0,80}}>"
    # to=functions.NAME<|channel|>commentary<|constrain|>json<|message|>
    rf"|\bto=(?P<channel>{NAME})(?:\s|<\|channel\|>|<\|constrain\|>|commentary|json|code){{0,16}}"
    r"<\|message\|>"
    # Action: NAME, and its input in the next line
    rf"|^[ \t]{{0,8}}Action:[ \t]{{0,8}}(?P<action>{NAME})[ \t]{{0,8}}\n[ \t]{{0,8}}Action Input:"
    r"|(?P<fence>```[ \t]{0,4}tool_(?:code|calls?)\b)"
    r"|(?P<other><\|python_tag\|>|<\|python_start\|>|\[TOOL_CALLS\]|<\|action_start\|>"
    r"(?:\s{0,4}<\|(?:plugin|interpreter)\|>)?|<\|START_ACTION\|>|<\|tools_prefix\|>)"
    r"|(?P<end></(?:[a-z]{1,12}:|\|[a-z]{1,12}\|)?(?:function|invoke|tool)>|<\|python_end\|>"
    r"|<\|action_end\|>|<\|END_ACTION\|>|<\|tools_suffix\|>)"
    r"|(?P<over><\|(?:eom_id|eot_id|eot|im_end|end|call|return|observation|user|endoftext"
    r"|end_of_text|end_of_sentence|END_OF_TURN_TOKEN)\|>"
    r"|<\|start\|>(?:assistant)?|<\|channel\|>final<\|message\|>|</s>|<eos>|<end_of_turn>|<turn\|>)",
    re.IGNORECASE | re.MULTILINE,
)
"""Every mark that begins or ends a call or a turn; bounded, so that no text makes it slow."""


@dataclass
class Block:
    """Text between two marks.

    Args:
        name: Of the call, where the first mark says it.
        body: The text between them.
        closed: Whether a mark ends it, so that nothing was cut off.
        repairs: What was forgiven, in a few words each.
    """

    name: str
    body: str
    closed: bool
    repairs: tuple[str, ...] = ()


def plain_marks(text: str) -> str:
    """The text with the wide bars and low blocks of DeepSeek's marks as "|" and "_"."""
    return text.replace("\uff5c", "|").replace("\u2581", "_")


def find_blocks(text: str) -> Iterator[Block]:
    """Yield the text between marks, in order; nothing where there are only ends of a turn."""
    opened: re.Match[str] | None = None
    seen, at = False, 0
    while mark := MARK.search(text, at):
        at = mark.end()
        ends, over = _ends(mark), bool(mark["over"])
        if mark["fence"]:
            if opened:
                yield _block(opened, text[opened.end() : mark.start()], False)
            opened, seen = None, True
            close = text.find("```", at)
            at = close + 3 if close >= 0 else len(text)
            body = text[mark.end() : close if close >= 0 else len(text)]
            yield Block("", body, close >= 0, () if close >= 0 else ("no closing tag",))
            continue
        if opened:
            body = text[opened.end() : mark.start()]
            if ends or over or body.strip():  # else a mark within a mark
                yield _block(opened, body, ends or over)
        elif ends and not seen:  # a chat template had opened it already
            yield Block("", text[: mark.start()], True, ("no opening tag",))
        opened = None if ends or over else mark
        seen = seen or not over
    if opened:
        yield _block(opened, text[opened.end() :], False)


def _block(opened: re.Match[str], body: str, closed: bool) -> Block:
    name = opened["element"] or opened["channel"] or opened["action"] or ""
    alone = opened["other"] or opened["action"]  # dialects that have no closing mark
    return Block(name, body, closed, () if closed or alone else ("no closing tag",))


def _ends(mark: re.Match[str]) -> bool:
    if mark["before"] is None:
        return mark["end"] is not None
    before, owner, after = mark["before"], mark["owner"].lower(), mark["after"]
    edge = (mark["edge"] or "").lower()
    return "/" in before or edge == "end" or owner == "end_" or (not before and after == "|")
