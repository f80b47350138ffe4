"""Formulas of rewards: "dice_gain?step_penalty=0.02 + 0.2 * format"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from medseg_gym.episodes.rewards.composition import Mixture, parts_of
from medseg_gym.episodes.rewards.protocol import Reward
from medseg_gym.errors import MedSegError
from medseg_gym.object_paths import files_in

_OWN = r"(?!-)(?:[A-Za-z]:(?=[\\/]))?[^\s()*+?:]+:[A-Za-z_][\w.]*"  # C:\own.py:Name too
_BEHIND_FILE = re.compile(r":[A-Za-z_][\w.]*(?:\?[^\s()]*)?")
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w./:]))"
    rf"|(?P<spec>(?:{_OWN}|[A-Za-z_]\w*)(?:\?[^\s()]*)?)"
    r"|(?P<mark>[-+*()])"
    r")"
)
_MARKS = "it has more than specs, numbers, +, - and *"
_NO_FORMULA = "it is not a formula"


class FormulaError(MedSegError):
    """A formula that cannot be read; its text says why, without naming the formula."""


@dataclass(frozen=True)
class Token:
    """A piece of a formula.

    Args:
        kind: "number", "spec" or "mark".
        text: As written.
    """

    kind: str
    text: str


def tokens_of(formula: str) -> list[Token]:
    """Cut a formula into numbers, specs and marks.

    The options of a spec end at a blank or a parenthesis, so that values may hold +, - and *. The
    path of a file that exists may hold any of these.

    Raises:
        FormulaError: There is something else in it.
    """
    tokens: list[Token] = []
    at, end = 0, len(formula.rstrip())
    ends = {start: stop for start, stop, _ in files_in(formula)}
    while at < end:
        at += len(formula[at:]) - len(formula[at:].lstrip())
        if at in ends and (name := _BEHIND_FILE.match(formula, ends[at])):
            tokens.append(Token("spec", formula[at : name.end()]))
            at = name.end()
            continue
        match = _TOKEN.match(formula, at)
        if match is None:
            raise FormulaError(_MARKS)
        kind = str(match.lastgroup)
        if tokens and tokens[-1].kind == "spec" and match[kind] == "(":
            raise FormulaError(
                "options stand behind a question mark, without parentheses: "
                f"{tokens[-1].text}?name=value"
            )
        tokens.append(Token(kind, match[kind]))
        at = match.end()
    return tokens


def evaluate(tokens: list[Token], make: Callable[[str], Reward]) -> Reward:
    """Return the reward that a formula stands for.

    Args:
        tokens: Of the formula.
        make: Called with each spec.

    Raises:
        FormulaError: It is no sum of rewards with weights.
        MedSegError: What `make` says.
    """
    try:
        value = _Reader(tokens, make).read()
    except RecursionError:
        raise FormulaError(_NO_FORMULA) from None
    if isinstance(value, float):
        raise FormulaError("it names no reward")
    return value


class _Reader:
    """Reads sums of products of numbers, specs and parentheses, left to right."""

    def __init__(self, tokens: list[Token], make: Callable[[str], Reward]) -> None:
        self._tokens, self._make, self._at = tokens, make, 0

    def read(self) -> Reward | float:
        value = self._sum()
        if self._at < len(self._tokens):
            token = self._tokens[self._at]
            raise FormulaError(_MARKS if token.text == "(" else _NO_FORMULA)
        return value

    def _next_mark(self, marks: str) -> str:
        """Take the next token if it is one of some marks, else return ""."""
        if self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token.kind == "mark" and token.text in marks:
                self._at += 1
                return token.text
        return ""

    def _sum(self) -> Reward | float:
        value = self._product()
        while mark := self._next_mark("+-"):
            other = self._product()
            if isinstance(value, float) or isinstance(other, float):
                raise FormulaError("a number is a weight: write it before a reward, with *")
            sign = -1.0 if mark == "-" else 1.0
            value = Mixture(parts_of(value)) + sign * Mixture(parts_of(other))
        return value

    def _product(self) -> Reward | float:
        value = self._factor()
        while self._next_mark("*"):
            other = self._factor()
            if isinstance(value, float):
                value = _scaled(value, other)
            elif isinstance(other, float):
                value = _scaled(other, value)
            else:
                raise FormulaError("rewards are added, and multiplied by numbers alone")
        return value

    def _factor(self) -> Reward | float:
        if mark := self._next_mark("+-"):
            return _scaled(-1.0 if mark == "-" else 1.0, self._factor())
        if self._next_mark("("):
            value = self._sum()
            if not self._next_mark(")"):
                raise FormulaError(_NO_FORMULA)
            return value
        if self._at == len(self._tokens):
            raise FormulaError(_NO_FORMULA)
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "number":
            return float(token.text)
        if token.kind == "spec":
            return self._make(token.text)
        raise FormulaError(_MARKS if token.text == "*" else _NO_FORMULA)


def _scaled(weight: float, value: Reward | float) -> Reward | float:
    return weight * value if isinstance(value, float) else weight * Mixture(parts_of(value))
