"""Separate the thoughts of a model from its answer.

Reasoning models put their thoughts between marks that differ from family to family. A call in a
thought is one that the model considered; it is never done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAGS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|seed:think"
_MARK = re.compile(
    rf"<(?P<slash>/?)(?P<tag>{_TAGS})\s{{0,4}}>"
    r"|\[(?P<slash2>/?)(?P<tag2>THINK)\]"
    r"|\u25c1(?P<slash3>/?)(?P<tag3>think)\u25b7"
    r"|<\|(?P<edge>START|END)_(?P<tag4>THINKING)\|>"
    r"|<\|(?P<edge2>begin|end)_of_(?P<tag5>thought)\|>"
    r"|<unused(?P<medgemma>94|95)>"
    r"|(?P<harmony><\|channel\|>analysis<\|message\|>)|(?P<harmony_end><\|end\|>)"
    r"|(?P<gemma><\|channel>thought\b)|(?P<gemma_end><channel\|>)",
    re.IGNORECASE,
)
_NEVER_ALONE = ("harmony", "gemma")  # their ends also end what is no thought


@dataclass(frozen=True)
class Spoken:
    """An answer without its thoughts.

    Args:
        text: The answer that is left.
        thoughts: What was taken out, in order.
        closer: The mark with which the last thought should have ended; "" if it did.
    """

    text: str
    thoughts: tuple[str, ...]
    closer: str = ""


def take_out_thoughts(text: str) -> Spoken:
    """Split an answer into its text and its thoughts.

    A mark that ends a thought without one that begins it makes a thought of all before it: a chat
    template had opened it already. A thought that does not end takes all the rest.
    """
    kept: list[str] = []
    thoughts: list[str] = []
    at, inside, closer = 0, "", ""
    for mark in _MARK.finditer(text):
        kind, ends = _kind_of(mark)
        if inside:
            if ends and kind == inside:
                thoughts.append(text[at : mark.start()])
                at, inside = mark.end(), ""
        elif not ends:
            kept.append(text[at : mark.start()])
            at, inside, closer = mark.end(), kind, _closer_of(mark)
        elif kind not in _NEVER_ALONE:
            thoughts.append("".join([*kept, text[at : mark.start()]]))
            kept, at = [], mark.end()
    if inside:
        return Spoken("".join(kept), (*thoughts, text[at:]), closer)
    return Spoken("".join([*kept, text[at:]]), tuple(thoughts))


def _kind_of(mark: re.Match[str]) -> tuple[str, bool]:
    """Return the family of a mark, and whether it ends a thought."""
    groups = mark.groupdict()
    for family in _NEVER_ALONE:
        if groups[family] or groups[f"{family}_end"]:
            return family, bool(groups[f"{family}_end"])
    if groups["medgemma"]:
        return "medgemma", groups["medgemma"] == "95"
    tag = next(groups[name] for name in ("tag", "tag2", "tag3", "tag4", "tag5") if groups[name])
    edge = (groups["edge"] or groups["edge2"] or "").lower()
    slash = groups["slash"] or groups["slash2"] or groups["slash3"]
    family = f"{mark.group()[0]}{mark.group()[1] if edge else ''}{tag.lower()}"
    return family, bool(slash) or edge == "end"


def _closer_of(mark: re.Match[str]) -> str:
    text = mark.group()
    groups = mark.groupdict()
    if groups["harmony"] or groups["gemma"]:
        return "<|end|>" if groups["harmony"] else "<channel|>"
    if groups["medgemma"]:
        return "<unused95>"
    if groups["edge"] or groups["edge2"]:
        return text.replace("START", "END").replace("begin", "end")
    return f"{text[0]}/{text[1:]}"
