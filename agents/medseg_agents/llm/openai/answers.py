"""A server's completion, read: words, tool calls, and whether it was cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg_gym.envs.views.cut_answer import CutAnswer

_TEXT_PARTS = ("text", "output_text", "refusal")
"""Types of parts of a `content` list that are kept; thoughts ("thinking", ...) are not."""


@dataclass(frozen=True)
class ToolCall:
    """A call that a server took out of the text.

    Args:
        id: Names it in the answer to it.
        name: Of the function.
        arguments: What was given, where it is an object, once decoded.
        unreadable: What was given, as text, where it is not.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    unreadable: str | None = None

    def message(self) -> dict[str, Any]:
        """Return the call as a part of an assistant message, with arguments encoded once.

        Servers refuse a conversation with arguments that are no object, so what is none is shown to
        the model inside of one.
        """
        given = self.arguments if self.unreadable is None else {"unreadable": self.unreadable}
        function = {"name": self.name, "arguments": json.dumps(given)}
        return {"id": self.id, "type": "function", "function": function}

    def written(self, last: bool = False) -> str:
        """Return the call as the environment reads it, in a text.

        Args:
            last: Nothing follows, so that arguments may break off here: left open, they are read
                as a call that was cut off, and the number at its end is not taken for a whole one.
        """
        if self.unreadable is None:
            call = json.dumps({"name": self.name, "arguments": dict(self.arguments)})
            return f"<tool_call>{call}</tool_call>"
        open_call = f'<tool_call>{{"name": {json.dumps(self.name)}, "arguments": {self.unreadable}'
        return open_call if last else open_call + "}</tool_call>"


@dataclass(frozen=True)
class AssistantTurn:
    """The model's turn in a conversation.

    Args:
        words: What stood beside the calls, refusals included.
        calls: In order.
        cut: Why it ends where it does, for "length" and "content_filter"; "" for a whole one.
    """

    words: str
    calls: tuple[ToolCall, ...] = ()
    cut: str = ""

    @property
    def text(self) -> str:
        """All of it as the environment reads it, calls in the text."""
        count = len(self.calls)
        return self.words + "".join(c.written(i == count) for i, c in enumerate(self.calls, 1))

    @property
    def played(self) -> str:
        """The text as an environment takes it: a `CutAnswer` where it was cut off."""
        return CutAnswer(self.text, self.cut) if self.cut else self.text

    def message(self) -> dict[str, Any]:
        """Return the assistant message that a later request holds."""
        if self.calls:
            calls = [call.message() for call in self.calls]
            return {"role": "assistant", "content": self.words, "tool_calls": calls}
        # Servers refuse an assistant message of nothing.
        words = self.words if self.words.strip() else "(cut off)" if self.cut else "(no answer)"
        return {"role": "assistant", "content": words}


def read_json(text: str) -> Any:
    """Read JSON as servers take it back: NaN and Infinity are none.

    Raises:
        ValueError: It is not JSON, or nested too deeply to be read.
    """

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def find_defect(completion: Any) -> str:
    """Say why what a server sent is no answer; "" if it is one."""
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        return f"an answer without a message: {str(completion)[:200]}"
    assert isinstance(choice, Mapping)
    if choice.get("finish_reason") == "error" or choice.get("error"):
        return f"an answer that failed half way: {str(choice.get('error') or message)[:200]}"
    return ""


def read_completion(
    completion: Mapping[str, Any], turn: int, max_tokens: int | None
) -> AssistantTurn:
    """Read an answer in which `find_defect` finds none.

    Args:
        completion: As the server sent it.
        turn: Number of the answer in its conversation, from 0.
        max_tokens: Limit that was asked for; None where another asked.
    """
    choice = completion["choices"][0]
    message = choice["message"]
    words = _words(message.get("content")) or _words(message.get("refusal"))
    calls: list[ToolCall] = []
    listed = message.get("tool_calls")
    for call in listed if isinstance(listed, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            known = {one.id for one in calls}
            calls.append(_tool_call(function, call.get("id"), known, turn, len(calls)))
    old = message.get("function_call")  # before there were tools
    if isinstance(old, Mapping):
        words += _tool_call(old, None, set(), turn, 0).written(last=True)
    return AssistantTurn(words, tuple(calls), _cut(choice.get("finish_reason"), max_tokens))


def _cut(finish: Any, max_tokens: int | None) -> str:
    if finish == "length" and max_tokens is None:
        return "the answer was cut off at a limit of tokens before its call was complete"
    if finish == "length":
        return (
            f"the answer was cut off at the limit of {max_tokens} tokens before its call was "
            "complete (option max_tokens raises the limit)"
        )
    if finish == "content_filter":
        return "the answer was cut off by the server's content filter before its call was complete"
    return ""


def _words(content: Any) -> str:
    """Return the text of a `content`: a str, parts, or nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    texts = []
    for item in content:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, Mapping) and item.get("type", "text") in _TEXT_PARTS:
            kind = "refusal" if item.get("type") == "refusal" else "text"
            texts.append(item[kind] if isinstance(item.get(kind), str) else "")
    return "".join(texts)


def _tool_call(
    function: Mapping[str, Any], id: Any, known: set[str], turn: int, number: int
) -> ToolCall:
    name, given = str(function.get("name") or ""), function.get("arguments")
    arguments = _object(given)
    if not isinstance(id, str) or not id or id in known:
        id = f"call{turn:03d}{number:02d}"  # nine letters and digits, as Mistral's servers want
    if arguments is None:
        unreadable = given if isinstance(given, str) else json.dumps(given)
        return ToolCall(id, name, {}, unreadable)
    return ToolCall(id, name, arguments)


def _object(arguments: Any) -> dict[str, Any] | None:
    """Arguments as an object, whether they came as JSON text, encoded twice, or as they are."""
    if arguments is None or arguments == "":
        return {}
    for _ in range(3):
        if not isinstance(arguments, str):
            break
        try:
            arguments = read_json(arguments)
        except ValueError:
            return None
    return arguments if isinstance(arguments, dict) else None
