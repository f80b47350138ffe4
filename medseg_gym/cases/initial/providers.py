"""Providers of initial masks by name, and the option of every case spec that names one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.errors import CaseError
from medseg_gym.registry import Factory, Registry
from medseg_gym.specs import divide_argument

InitialMask = Callable[[Case], "np.ndarray | None"]
"""Gives the mask that an episode on a case begins with, (H, W) bool, or None for nothing."""

OPTION = "initial_mask"

INITIAL_MASKS: Registry[InitialMask] = Registry(
    "initial mask",
    "medseg_gym.initial_masks",
    "factory(argument, **options)",
    {
        "wrong": "medseg_gym.cases.initial.wrong:load",
        "file": "medseg_gym.cases.initial.mask_files:load",
        "volume": "medseg_gym.cases.initial.label_volumes:load",
    },
    CaseError,
    has_argument=True,
    own_signature="function(case, **options)",
)


def register(kind: str, factory: str | Factory[InitialMask]) -> None:
    """Make `initial_mask=kind:ARGUMENT?option=value` call `factory("ARGUMENT", option=value)`.

    Args:
        kind: See `Registry.register`.
        factory: Returns an `InitialMask`; or "module:name".

    Raises:
        CaseError: The kind is taken or cannot be written in a spec.
    """
    INITIAL_MASKS.register(kind, factory)


def make(text: str) -> InitialMask:
    """Make what a text names: a kind, or "package.module:name" or "path/file.py:name" of a user.

    Raises:
        CaseError: Unknown kind or option, or what a user wrote is no function.
    """
    spec = INITIAL_MASKS.parse(text)
    factory = INITIAL_MASKS.find(spec)
    if not spec.is_own:
        return INITIAL_MASKS.build(spec, factory)
    own: Any = factory
    options = INITIAL_MASKS.options_of(spec, own, 1)
    INITIAL_MASKS.check_call(spec, own, object(), **options)
    return partial(own, **options) if options else own


def take_option(text: str) -> tuple[str, str | None]:
    """Take `initial_mask=` out of a case spec.

    Returns:
        The spec without it, and its value; None where it has none.

    Raises:
        CaseError: It is given twice, or has no value.
    """
    argument, query = divide_argument(text)
    pieces = query.split("&") if query else []
    given = [piece for piece in pieces if piece.startswith(f"{OPTION}=")]
    if not given:
        return text, None
    value = unquote(given[0].partition("=")[2])
    if len(given) > 1 or not value:
        raise CaseError(f"{text}: {OPTION} names one provider, as {OPTION}=wrong or file:PATTERN")
    rest = "&".join(piece for piece in pieces if piece not in given)
    return argument + ("?" + rest if rest else ""), value
