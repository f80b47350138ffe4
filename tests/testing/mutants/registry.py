"""Registry of mutants, each with the check that must fail on it."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_env import MODES, TinyVectorEnv

MUTANTS: list[Any] = []


def mutant(check_name: str, message: str, modes: Any = MODES, **arguments: Any) -> Any:
    """Registers a class that must fail `check_name` with `message` in each of `modes`."""

    def register(cls: type) -> type:
        for mode in modes:
            name = f"{check_name}-{cls.__name__}-{mode.name}"
            MUTANTS.append(pytest.param(cls, mode, check_name, message, arguments, id=name))
        return cls

    return register


def stepping(change: Any) -> Any:
    """A method `step` that passes the right results through `change(self, results, actions)`."""

    def step(self: Any, actions: Any) -> Any:
        observations, rewards, terminations, truncations, infos = TinyVectorEnv.step(self, actions)
        names = ("observations", "rewards", "terminations", "truncations", "infos")
        results = dict(
            zip(names, (observations, rewards, terminations, truncations, infos), strict=True)
        )
        change(self, results, actions)
        return tuple(results[name] for name in names)

    return step


def mutant_step(check_name: str, message: str, modes: Any = MODES, **arguments: Any) -> Any:
    """Registers the mutant whose steps go through the decorated function."""

    def register(change: Any) -> Any:
        cls = type(change.__name__, (TinyVectorEnv,), {"step": stepping(change)})
        mutant(check_name, message, modes, **arguments)(cls)
        return change

    return register
