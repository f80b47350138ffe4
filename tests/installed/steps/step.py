"""A step, and the list of all that were added."""

from __future__ import annotations

from collections.abc import Callable

from workplace import Workplace

ADDED: list[tuple[str, Callable[[Workplace], None]]] = []
"""Titles and functions."""


def step(title: str) -> Callable[[Callable[[Workplace], None]], Callable[[Workplace], None]]:
    """Add a function to the steps; those of a module run in the order in which they stand."""

    def add(function: Callable[[Workplace], None]) -> Callable[[Workplace], None]:
        ADDED.append((title, function))
        return function

    return add
