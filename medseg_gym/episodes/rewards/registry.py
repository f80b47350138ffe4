"""Rewards by spec, and mixtures of them by formula."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medseg_gym.episodes.rewards.dice_gain import DiceGain
from medseg_gym.episodes.rewards.format import Format
from medseg_gym.episodes.rewards.formula import FormulaError, Token, evaluate, tokens_of
from medseg_gym.episodes.rewards.ibis_agent import IbisAgent
from medseg_gym.episodes.rewards.medsam_agent import MedSamAgent
from medseg_gym.episodes.rewards.pay import reward_name
from medseg_gym.episodes.rewards.protocol import Reward
from medseg_gym.episodes.rewards.stop_regret import StopRegret
from medseg_gym.errors import MedSegError
from medseg_gym.registry import Factory, Registry
from medseg_gym.specs import Spec

REWARDS: Registry[Reward] = Registry(
    "reward",
    "medseg_gym.rewards",
    "factory(**options)",
    {factory.name: factory for factory in (DiceGain, MedSamAgent, IbisAgent, Format, StopRegret)},
)


def names() -> tuple[str, ...]:
    """Kinds that `make` knows, sorted."""
    return REWARDS.names()


def register(kind: str, factory: str | Factory[Reward]) -> None:
    """Make `make("kind?option=value")` call `factory(option=value)`.

    A kind that is a Python identifier can be used in formulas, too.

    Args:
        kind: See `Registry.register`.
        factory: Returns a Reward; or "module:name".

    Raises:
        MedSegError: The kind is taken or cannot be written in a spec.
    """
    REWARDS.register(kind, factory)


def make(text: str | Reward, **options: Any) -> Reward:
    """Get a reward by spec or formula, or give a Reward object back as it is.

    A formula is a sum of specs with weights. Around +, - and * behind the options of a spec there
    are blanks, for values may hold these marks:

    >>> make("dice_gain + 0.2 * format").parts
    ((1.0, DiceGain(step_penalty=0.01)), (0.2, Format(absent_needs_prompt=False)))
    >>> make("0.5 * (dice_gain?step_penalty=0.02 - stop_regret)").parts
    ((0.5, DiceGain(step_penalty=0.02)), (-0.5, StopRegret()))

    Args:
        text: Spec, formula or object. "package.module:Name" and "path/file.py:Name" name a class,
            or a function of the episode and of options, of your own.
        **options: Of a single spec.

    Raises:
        MedSegError: Unknown kind or option, a value of another type, a formula that cannot be read,
            or options for anything but a single spec.
    """
    if not isinstance(text, str):
        if options:
            raise MedSegError(f"options go with a reward's name; {text!r} was given")
        return text
    try:
        tokens = [Token("spec", text)] if _is_whole(text) else tokens_of(text)
        if [token.kind for token in tokens] == ["spec"]:
            return _build(tokens[0].text, options)
        if options:
            raise MedSegError(
                f"options go with a reward's name; in the formula {text!r} write them behind it: "
                "dice_gain?step_penalty=0.02"
            )
        return evaluate(tokens, lambda spec: _build(spec, {}))
    except FormulaError as problem:
        raise MedSegError(
            f"cannot read the reward {text[:200]!r}: {problem}. Write a sum such as 'dice_gain + "
            f"0.2 * format' of {', '.join(names())}"
        ) from None


def _is_whole(text: str) -> bool:
    """Return whether a text is one spec though no formula could hold it, as a path with blanks."""
    if REWARDS.knows(re.split(r"[:?]", text, maxsplit=1)[0]):
        return True
    spec = REWARDS.parse(text)  # of C:\own.py:Name the first colon is the drive's
    file = spec.kind.rpartition(":")[0]
    return spec.is_own and file.endswith(".py") and Path(file).expanduser().is_file()


def _build(text: str, options: dict[str, Any]) -> Reward:
    spec = REWARDS.parse(text)
    factory: Any = REWARDS.find(spec)  # what a user wrote may be anything
    if spec.is_own and not isinstance(factory, type):
        return _own(spec, factory, options)
    reward = REWARDS.build(spec, factory, **options)
    if spec.is_own:
        _check_call(spec, reward, "reward(episode)")
    return reward


def _own(spec: Spec, reward: Any, options: dict[str, Any]) -> Reward:
    """Return a user's function or object, its options bound."""
    wanted = "reward(episode, **options), or a class that makes such an object"
    options = {**REWARDS.options_of(spec, reward, 1), **options} if callable(reward) else {}
    _check_call(spec, reward, wanted, options)
    own: Reward = reward
    if not options:
        return own
    bound = functools.partial(own, **options)
    return functools.update_wrapper(bound, reward)


def _check_call(
    spec: Spec, reward: Any, wanted: str, options: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Refuse what cannot be called with an episode."""
    if not callable(reward):
        raise MedSegError(
            f"reward {spec}: it is of the type {type(reward).__name__}; wanted is {wanted}"
        )
    try:
        inspect.signature(reward).bind(object(), **options)
    except ValueError:  # built in, without a signature
        return
    except TypeError as problem:
        raise MedSegError(
            f"reward {spec}: {reward_name(reward)}"
            f"{inspect.signature(reward)} cannot be called as {wanted}: {problem}"
        ) from None
