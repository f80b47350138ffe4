"""JSON as models write it: single quotes, bare keys, a comma too many, brackets left open.

Reads one value from the beginning of a text, in one pass, and says what it had to forgive. What
could mean two things is refused: a text that breaks off in the middle of a number or a string.
"""

from __future__ import annotations

import json
import re
from typing import Any

_BLANK = re.compile(r"\s*")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[^\W\d][\w-]*")
_STRINGS = {
    '"': re.compile(r'([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    "'": re.compile(r"([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL),
    "\u201c": re.compile(r"([^\u201d]*)\u201d"),
    "\u2018": re.compile(r"([^\u2019]*)\u2019"),
}
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_DEEPEST = 12


def read_lenient_json(text: str, cut: bool = False) -> tuple[Any, list[str]]:
    """Read one value; what follows it is left alone.

    Args:
        text: Begins with the value.
        cut: The text may have been cut off at its end, so that a number there may lack digits.

    Returns:
        The value, and what was forgiven in a few words each.

    Raises:
        ValueError: Not readable, in words for the model that wrote it.
    """
    reader = _Reader(text, cut)
    value = reader.value(0)
    return value, list(dict.fromkeys(reader.forgiven))


class _Reader:
    def __init__(self, text: str, cut: bool) -> None:
        self.text, self.cut = text, cut
        self.at = 0
        self.forgiven: list[str] = []

    def peek(self) -> str:
        """The next character that is not blank, "" at the end."""
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def refuse(self, what: str) -> ValueError:
        where = f"at character {self.at}" if self.at < len(self.text) else "at its end"
        return ValueError(f"{what} {where}")

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise self.refuse("nested too deeply")
        mark = self.peek()
        if mark == "{":
            return self.items(depth)
        if mark == "[":
            return self.elements(depth)
        if mark in _STRINGS and mark:
            return self.string(mark)
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            if self.cut and self.at == len(self.text):
                raise self.refuse("breaks off in the middle of a number")
            return _read_number(number.group())
        word = _WORD.match(self.text, self.at)
        if word and word.group() in _WORDS:
            self.at = word.end()
            if word.group()[0].isupper():
                self.forgiven.append("words of Python")
            return _WORDS[word.group()]
        raise self.refuse("a value is missing")

    def string(self, mark: str) -> str:
        found = _STRINGS[mark].match(self.text, self.at + 1)
        if found is None:
            raise self.refuse("a string is not closed that begins")
        self.at = found.end()
        inner = found.group(1)
        if mark == '"':
            return str(json.loads(f'"{inner}"', strict=False))
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
        """Whether the container ends here; the end of the text ends them all."""
        mark = self.peek()
        if mark == closer:
            self.at += 1
            return True
        if not mark:
            self.forgiven.append("brackets left open")
            return True
        if mark in "}]":  # the inner one was forgotten: the outer one takes it
            self.forgiven.append("brackets left open")
            return True
        return False

    def items(self, depth: int) -> dict[str, Any]:
        self.at += 1
        found: dict[str, Any] = {}
        while not self.closes("}"):
            if found and not self.comma("}"):
                break
            key = self.key()
            if self.peek() != ":":
                raise self.refuse(f"a colon is missing after {key[:40]!r}")
            self.at += 1
            found[key] = self.value(depth + 1)
        return found

    def elements(self, depth: int) -> list[Any]:
        self.at += 1
        found: list[Any] = []
        while not self.closes("]"):
            if found and not self.comma("]"):
                break
            found.append(self.value(depth + 1))
        return found

    def comma(self, closer: str) -> bool:
        """Step over a comma; False if it was the last thing in its container."""
        if self.peek() != ",":
            raise self.refuse("a comma is missing")
        self.at += 1
        mark = self.peek()
        if mark and mark not in "}]":
            return True
        self.forgiven.append("a comma too many")
        self.closes(closer)
        return False


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    if len(text) > 400:
        raise ValueError(f"a number has {len(text)} digits")
    return float(text)
