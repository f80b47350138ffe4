"""JSON as models write it: single quotes, bare keys, a comma too many, brackets left open.

Reads one value from a place in a text, in one pass, and says what it had to forgive. What could
mean two things is refused: a text that breaks off inside a value, a key that is given twice with
different values. Tuples and calls of Python are read by the same rules.
"""

from __future__ import annotations

import json
import re
from typing import Any

_BLANK = re.compile(r"\s*")
_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|(?:Infinity|inf|NaN|nan)\b)")
_WORD = re.compile(r"[^\W\d][\w-]*")
_KEYWORD = re.compile(r"([^\W\d]\w*)\s*=(?!=)")
_STRINGS = {
    '"': re.compile(r'([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    "'": re.compile(r"([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL),
    "\u201c": re.compile(r"([^\u201d]*)\u201d"),
    "\u2018": re.compile(r"([^\u2019]*)\u2019"),
}
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_CLOSERS = "}])"
_DEEPEST = 12


class UnreadableJson(ValueError):
    """Not readable, in words for the model that wrote it.

    Args:
        what: Is wrong.
        at: Up to which character of the text it was looked at.
    """

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


def read_lenient_json(text: str, cut: bool = False) -> tuple[Any, list[str]]:
    """Read one value; what follows it is left alone.

    Args:
        text: Begins with the value.
        cut: The text may have been cut off at its end, so that a value that reaches there may lack
            something.

    Returns:
        The value, and what was forgiven in a few words each.

    Raises:
        UnreadableJson: Not readable, in words for the model that wrote it.
    """
    value, _, forgiven = read_value(text, 0, cut)
    return value, forgiven


def read_value(text: str, at: int, cut: bool = False) -> tuple[Any, int, list[str]]:
    """Read one value from a place in a text.

    Args:
        text: As in `read_lenient_json`.
        at: Where the value begins.
        cut: As in `read_lenient_json`.

    Returns:
        The value, where it ends, and what was forgiven.

    Raises:
        UnreadableJson: Not readable.
    """
    reader = _Reader(text, at, cut)
    value = reader.value(0)
    return value, reader.at, list(dict.fromkeys(reader.forgiven))


def read_call_arguments(
    text: str, at: int, cut: bool = False
) -> tuple[list[Any], dict[str, Any], int, list[str]]:
    """Read the arguments of a call as Python writes it.

    Args:
        text: As in `read_lenient_json`.
        at: Behind the opening bracket.
        cut: As in `read_lenient_json`.

    Returns:
        Arguments by position and by name, where the call ends, and what was forgiven.

    Raises:
        UnreadableJson: Not readable.
    """
    reader = _Reader(text, at, cut)
    plain, named = reader.arguments()
    return plain, named, reader.at, list(dict.fromkeys(reader.forgiven))


class _Reader:
    def __init__(self, text: str, at: int, cut: bool) -> None:
        self.text, self.at, self.cut = text, at, cut
        self.start = at
        self.forgiven: list[str] = []

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def refuse(self, what: str) -> UnreadableJson:
        inside = self.at < len(self.text)
        where = f"at character {self.at - self.start}" if inside else "at its end"
        return UnreadableJson(f"{what} {where}", self.at)

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self.refuse("nested too deeply")
        mark = self.peek()
        if mark == "{":
            return self.items(depth)
        if mark == "[":
            return self.elements("]", depth)
        if mark == "(":
            self.forgiven.append("brackets of Python")
            return self.elements(")", depth)
        if mark in _STRINGS and mark:
            return self.string(mark)
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            if self.cut and self.at == len(self.text):
                raise self.refuse("breaks off in the middle of a number")
            return self.number(number.group())
        word = _WORD.match(self.text, self.at)
        if word and word.group() in _WORDS:
            self.at = word.end()
            if word.group()[0].isupper():
                self.forgiven.append("words of Python")
            return _WORDS[word.group()]
        raise self.refuse("a value is missing")

    def number(self, text: str) -> int | float:
        try:
            return int(text)
        except ValueError:
            pass
        if len(text) > 400:
            raise UnreadableJson(f"a number has {len(text)} digits", self.at)
        return float(text)

    def string(self, mark: str) -> str:
        match = _STRINGS[mark].match(self.text, self.at + 1)
        if match is None:
            error = self.refuse("a string is not closed that begins")
            error.at = len(self.text)
            raise error
        self.at = match.end()
        inner = match.group(1)
        if mark == '"':
            try:
                return str(json.loads(f'"{inner}"', strict=False))
            except ValueError:
                raise self.refuse("a string cannot be read that ends") from None
        self.forgiven.append("quotes")
        return inner.replace("\\'", "'")

    def key(self) -> str:
        mark = self.peek()
        if mark in _STRINGS and mark:
            return self.string(mark)
        word = _WORD.match(self.text, self.at)
        if word is None:
            raise self.refuse("a key is missing")
        self.at = word.end()
        if self.text[self.at : self.at + 1] in ('"', "'"):
            self.at += 1  # only the quote before the key was forgotten
        self.forgiven.append("a key without quotes")
        return word.group()

    def closes(self, closer: str) -> bool:
        """Return True if the container ends here; the end of a whole text ends them all."""
        mark = self.peek()
        if mark == closer:
            self.at += 1
            return True
        if not mark and self.cut:
            raise self.refuse("breaks off with brackets open")
        if not mark or mark in _CLOSERS:  # the inner one was forgotten: the outer one takes it
            self.forgiven.append("brackets left open")
            return True
        return False

    def items(self, depth: int) -> dict[str, Any]:
        self.at += 1
        container: dict[str, Any] = {}
        while not self.closes("}"):
            if container and not self.comma("}"):
                break
            key = self.key()
            if self.peek() != ":":
                raise self.refuse(f"a colon is missing after {key[:40]!r}")
            self.at += 1
            self.put(container, key, self.value(depth + 1))
        return container

    def put(self, container: dict[str, Any], key: str, value: Any) -> None:
        if key in container and container[key] != value:
            raise self.refuse(f"{key[:40]!r} is given twice")
        container[key] = value

    def elements(self, closer: str, depth: int) -> list[Any]:
        self.at += 1
        container: list[Any] = []
        while not self.closes(closer):
            if container and not self.comma(closer):
                break
            container.append(self.value(depth + 1))
        return container

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        plain: list[Any] = []
        named: dict[str, Any] = {}
        while not self.closes(")"):
            if (plain or named) and not self.comma(")"):
                break
            self.peek()
            keyword = _KEYWORD.match(self.text, self.at)
            if keyword:
                self.at = keyword.end()
                self.put(named, keyword.group(1), self.value(1))
            elif named:
                raise self.refuse("an argument without a name follows one with a name")
            else:
                plain.append(self.value(1))
        return plain, named

    def comma(self, closer: str) -> bool:
        """Step over a comma; False if it was the last thing in its container."""
        if self.peek() != ",":
            raise self.refuse("a comma is missing")
        self.at += 1
        mark = self.peek()
        if mark and mark not in _CLOSERS:
            return True
        self.forgiven.append("a comma too many")
        self.closes(closer)
        return False
