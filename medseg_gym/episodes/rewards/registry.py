"""Rewards by name, and mixtures of them by formula."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from medseg_gym.episodes.rewards.composition import Mixture, parts_of
from medseg_gym.episodes.rewards.dice_gain import DiceGain
from medseg_gym.episodes.rewards.format import Format
from medseg_gym.episodes.rewards.ibis_agent import IbisAgent
from medseg_gym.episodes.rewards.medsam_agent import MedSamAgent
from medseg_gym.episodes.rewards.protocol import Reward
from medseg_gym.episodes.rewards.stop_regret import StopRegret
from medseg_gym.errors import MedSegError

_REWARDS: dict[str, Callable[..., Reward]] = {
    factory.name: factory for factory in (DiceGain, MedSamAgent, IbisAgent, Format, StopRegret)
}


def names() -> list[str]:
    """Names that `make` knows, sorted."""
    return sorted(_REWARDS)


def register(name: str, factory: Callable[..., Reward]) -> None:
    """Make `make(name, **options)` call `factory(**options)`.

    A name that is a Python identifier can be used in formulas, too.

    Raises:
        MedSegError: The name is taken.
    """
    if name in _REWARDS:
        raise MedSegError(f"a reward named {name!r} is registered already")
    _REWARDS[name] = factory


def make(name: str | Reward, **options: Any) -> Reward:
    """Get a reward by name or formula, or give a Reward object back as it is.

    A formula is a sum of rewards with weights, in Python's notation; a name may have options:

    >>> make("dice_gain + 0.2 * format").parts
    ((1.0, DiceGain(step_penalty=0.01)), (0.2, Format(absent_needs_prompt=False)))
    >>> make("0.5 * (dice_gain(step_penalty=0.02) - stop_regret)").parts
    ((0.5, DiceGain(step_penalty=0.02)), (-0.5, StopRegret()))

    Args:
        name: Name, formula or object.
        **options: Of a single name.

    Raises:
        MedSegError: Unknown name or option, a formula that cannot be read, or options for anything
            but a single name.
    """
    if not isinstance(name, str):
        if options:
            raise MedSegError(f"options go with a reward's name; {name!r} was given")
        return name
    if name in _REWARDS or name.isidentifier():
        return _build(name, options)
    if options:
        raise MedSegError(
            f"options go with a reward's name; in the formula {name!r} write them behind it: "
            "dice_gain(step_penalty=0.02)"
        )
    try:
        tree = ast.parse(name.strip(), mode="eval").body
        found = _evaluate(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, MedSegError):
            raise
        raise _unreadable(name, "it is not a formula") from error
    if isinstance(found, float):
        raise _unreadable(name, "it names no reward")
    return found


def _build(name: str, options: dict[str, Any]) -> Reward:
    if name not in _REWARDS:
        raise MedSegError(
            f"unknown reward {name!r}; known: {', '.join(names())}. "
            "Pass an object called with the Episode for your own"
        )
    try:
        return _REWARDS[name](**options)
    except TypeError as error:
        raise MedSegError(f"reward {name!r} cannot be made with {options}: {error}") from error


def _evaluate(node: ast.expr) -> Reward | float:
    """Value of a formula's node: a number or a reward."""
    text = ast.unparse(node)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.Name):
        return _build(node.id, {})
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise _unreadable(text, "options are given by name")
        options = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
        return _build(node.func.id, options)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        sign = -1.0 if isinstance(node.op, ast.USub) else 1.0
        return _scaled(sign, _evaluate(node.operand))
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Mult):
            if isinstance(left, float):
                return _scaled(left, right)
            if isinstance(right, float):
                return _scaled(right, left)
            raise _unreadable(text, "rewards are added, and multiplied by numbers alone")
        if isinstance(left, float) or isinstance(right, float):
            raise _unreadable(text, "a number is a weight: write it before a reward, with *")
        sign = -1.0 if isinstance(node.op, ast.Sub) else 1.0
        return Mixture(parts_of(left)) + sign * Mixture(parts_of(right))
    raise _unreadable(text, "it has more than names, numbers, +, - and *")


def _scaled(weight: float, value: Reward | float) -> Reward | float:
    return weight * value if isinstance(value, float) else weight * Mixture(parts_of(value))


def _unreadable(text: str, why: str) -> MedSegError:
    return MedSegError(
        f"cannot read the reward {text!r}: {why}. Write a sum such as 'dice_gain + 0.2 * format' "
        f"of {', '.join(names())}"
    )
