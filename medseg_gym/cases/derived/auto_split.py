"""The split of `--split auto`: test, or everything where the data name no splits and are few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from medseg_gym.cases.source import ALL, EmptySplit, Source
from medseg_gym.statistics import MIN_GROUPS

AnySource = TypeVar("AnySource", bound=Source[Any])


def open_auto(text: str, load: Callable[[str, str], AnySource]) -> AnySource:
    """Open the test split; or all cases, where chance alone would leave next to none of them in it.

    Data that name no splits are divided by a hash of their groups. Of a handful of images the test
    split may then hold one or none; fewer groups than an interval needs are no test of anything.

    Args:
        text: The spec.
        load: `load_cases` or `load_volumes`.

    Raises:
        CaseError: See `load`; also where the data have splits of their own, and no test split.
    """
    try:
        test = load(text, "test")
    except EmptySplit as problem:
        if not problem.drawn:
            raise
    else:
        if not test.drawn_split or (test.group_count() or 0) >= MIN_GROUPS:
            return test
    return load(text, ALL)
