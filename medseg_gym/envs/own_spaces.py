"""Spaces as attributes of environments, handed out so that nobody can change another's.

Wrappers change spaces in place: Stable-Baselines3's `VecNormalize` puts other parts into the `Dict`
that it was given.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from gymnasium import Space


class CopiedSpace:
    """An attribute that gives a fresh copy of its space whenever it is read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_own_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return deepcopy(self._space(instance))

    def __set__(self, instance: Any, space: Space) -> None:
        instance.__dict__[self._key] = deepcopy(space)

    def _space(self, instance: Any) -> Space:
        try:
            space: Space = instance.__dict__[self._key]
        except KeyError:
            raise AttributeError(f"{type(instance).__name__} has no {self._key[5:]} yet") from None
        return space


class SeededSpace(CopiedSpace):
    """An attribute whose space stays the same object, so that `env.action_space.seed(0)` holds.

    Once somebody has changed that object, the next reader gets a fresh one.
    """

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        original = self._space(instance)
        shown = instance.__dict__.get(f"{self._key}_shown")
        if shown is None or not _same(shown, original):
            shown = instance.__dict__[f"{self._key}_shown"] = deepcopy(original)
        return shown

    def __set__(self, instance: Any, space: Space) -> None:
        super().__set__(instance, space)
        instance.__dict__.pop(f"{self._key}_shown", None)


def _same(shown: Space, original: Space) -> bool:
    try:
        return bool(shown == original) and shown.shape == original.shape
    except Exception:  # whatever was put in there cannot even be compared
        return False
