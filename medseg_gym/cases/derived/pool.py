"""A finite pool of cases, drawn once and kept in memory: "pool:4000:phantoms:abdomen"."""

from __future__ import annotations

import re

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseList, CaseSource, load_cases
from medseg_gym.errors import CaseError
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec

_ARGUMENT = re.compile(r"(\d+)(?:@(\d+))?:(.+)")


@takes_spec
def load(spec: Spec, split: str) -> CaseList:
    """Open the pool for `load_cases("pool:SIZE:SPEC", split)`.

    Args:
        spec: "pool:SIZE:SPEC" or "pool:SIZE@SEED:SPEC"; options belong to the inner spec.
        split: Of the inner spec.

    Raises:
        CaseError: It cannot be read, or what `case_pool` says.
    """
    match = _ARGUMENT.fullmatch(spec.rest)
    if match is None:
        raise CaseError(
            f"{spec}: expected pool:SIZE:SPEC or pool:SIZE@SEED:SPEC, for example "
            "pool:4000:phantoms:abdomen"
        )
    return case_pool(load_cases(match[3], split), int(match[1]), int(match[2] or 0))


def case_pool(source: CaseSource, size: int, seed: int = 0) -> CaseList:
    """Draw cases once, so that a training run neither draws images nor reads files again.

    Of an image that is drawn all cases are taken, as far as there is room, so that one encoding
    serves them all. Cases on one image must follow each other in the source, as they do in all of
    this suite's.

    Args:
        source: To draw from.
        size: Most cases; a source that has fewer is taken whole.
        seed: Of the draw.

    Returns:
        A list with the vocabulary of the source, in which no case comes twice.

    Raises:
        CaseError: A size below 1.
    """
    if size < 1:
        raise CaseError(f"a pool needs at least one case, got size {size}")
    name = f"pool:{size}@{seed}:{source.name}"
    if size >= len(source):
        cases = [source[index] for index in range(len(source))]
        return CaseList(cases, source.targets, name, source.split, source.left_out)
    chosen: list[Case] = []
    seen: set[int] = set()
    for start in np.random.default_rng(seed).permutation(len(source)).tolist():
        if len(chosen) >= size:
            break
        if start in seen:
            continue
        for index, case in cases_on_image(source, start, size - len(chosen)):
            if index not in seen:
                seen.add(index)
                chosen.append(case)
    return CaseList(chosen, source.targets, name, source.split, source.left_out)


def cases_on_image(
    source: CaseSource, index: int, limit: int | None = None
) -> list[tuple[int, Case]]:
    """Return the cases on the image of a case with their indices, itself first.

    Args:
        source: Cases on one image must follow each other in it.
        index: Of the case.
        limit: Most cases; None returns all.
    """
    first = source[index]
    together = [(index, first)]
    for step in (1, -1):
        at = index + step
        while 0 <= at < len(source) and (limit is None or len(together) < limit):
            case = source[at]
            if case.content_hash != first.content_hash:
                break
            together.append((at, case))
            at += step
    return together
