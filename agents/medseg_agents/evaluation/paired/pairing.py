"""Rows of two runs that belong together, and their common cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg_agents.evaluation.case_record import CaseRecord, EpisodeRecord
from medseg_agents.evaluation.paired.played_runs import CaseAndSeed, PlayedRow
from medseg_gym.errors import MedSegError

_ABOUT_THE_RECORDS = ("masks", "num_envs")
"""Settings in which two runs may differ without anything to say of their numbers."""
_AREA = 1e-6


@dataclass(frozen=True)
class Pair:
    """Rows of two runs, and the cases that both played.

    Args:
        first: Of the first run.
        second: Of the second run.
        cases: Key and seed of what both played, in the first one's order.
        only_first: How many the first alone has a score of.
        only_second: How many the second alone has a score of.
        differing: Settings that differ, with both values.
    """

    first: PlayedRow
    second: PlayedRow
    cases: tuple[CaseAndSeed, ...]
    only_first: int
    only_second: int
    differing: Mapping[str, tuple[Any, Any]]

    @property
    def name(self) -> str:
        """Of tables and plots."""
        if self.first.name == self.second.name:
            return self.first.name
        return f"{self.first.name} → {self.second.name}"

    @property
    def of_volumes(self) -> bool:
        """Return whether the cases are whole volumes."""
        return self.first.plays_volumes

    @property
    def records(self) -> list[tuple[EpisodeRecord, EpisodeRecord]]:
        """Cases that both played, one by one."""
        return [(self.first.records[case], self.second.records[case]) for case in self.cases]


def pair_rows(first: Sequence[PlayedRow], second: Sequence[PlayedRow]) -> list[Pair]:
    """Lay two runs side by side.

    A run of one policy on one backbone goes with every row of the other run; else rows of the same
    policy and backbone go together.

    Raises:
        MedSegError: Nothing goes together, no case is in both, or a case of the same key is another
            case.
    """
    if len(first) == 1 or len(second) == 1:
        together = [(a, b) for a in first for b in second]
    else:
        together = [(a, b) for a in first for b in second if a.name == b.name]
    alike = [(a, b) for a, b in together if a.plays_volumes == b.plays_volumes]
    if together and not alike:
        raise MedSegError(
            f"one of {first[0].folder} and {second[0].folder} played whole volumes, the other "
            "images or slices: their cases are not the same. Compare the volumes' scores in "
            "volumes.csv or results_volumes.csv"
        )
    if not together:
        raise MedSegError(
            f"no policy and backbone are in both runs: {_names(first)} in {first[0].folder}; "
            f"{_names(second)} in {second[0].folder}"
        )
    return [_pair(a, b) for a, b in alike]


def without_partner(rows: Sequence[PlayedRow], pairs: Sequence[Pair]) -> list[str]:
    """Names of the rows that are in no pair."""
    paired = {id(row) for pair in pairs for row in (pair.first, pair.second)}
    return [row.name for row in rows if id(row) not in paired]


def _pair(first: PlayedRow, second: PlayedRow) -> Pair:
    seeds = [{seed for _, seed in row.records} for row in (first, second)]
    if len(seeds[0]) == len(seeds[1]) == 1 and seeds[0] != seeds[1]:
        # One seed each, and not the same: cases alone are paired, and the table says it.
        (seed,), (other,) = seeds
        second = _with_seed(second, other, seed)
    cases = tuple(case for case in first.records if case in second.records)
    if not cases:
        raise MedSegError(
            f"no case was played by both {first.name} in {first.folder} ({_first(first)}) and "
            f"{second.name} in {second.folder} ({_first(second)}): these are other cases, or "
            "another split"
        )
    for case in cases:
        a, b = first.records[case], second.records[case]
        if (a.target, a.group) != (b.target, b.group) or not _as_large(a, b):
            raise MedSegError(
                f"case {case[0]!r} is another case in {second.folder} ({_described(b)}) than in "
                f"{first.folder} ({_described(a)}): the differences would mean nothing"
            )
    return Pair(
        first,
        second,
        cases,
        len(first.records) - len(cases),
        len(second.records) - len(cases),
        _differing(first, second, len(cases)),
    )


def _as_large(first: EpisodeRecord, second: EpisodeRecord) -> bool:
    if isinstance(first, CaseRecord) and isinstance(second, CaseRecord):
        return abs(first.area - second.area) <= _AREA
    return getattr(first, "shape", None) == getattr(second, "shape", None)


def _described(record: EpisodeRecord) -> str:
    size = f"area {record.area:.4%}" if isinstance(record, CaseRecord) else ""
    size = size or f"shape {getattr(record, 'shape', None)}"
    return f"target {record.target!r}, group {record.group!r}, {size}"


def _with_seed(row: PlayedRow, seed: int, other: int) -> PlayedRow:
    def renamed(things: Mapping[CaseAndSeed, Any]) -> dict[CaseAndSeed, Any]:
        return {(case, other if own == seed else own): one for (case, own), one in things.items()}

    return PlayedRow(
        row.folder,
        row.policy,
        row.backbone,
        row.settings,
        renamed(row.records),
        renamed(row.failed),
    )


def _differing(first: PlayedRow, second: PlayedRow, both: int) -> dict[str, tuple[Any, Any]]:
    """Settings that differ; those of the cases only where the cases are not all the same."""
    ignored = set(_ABOUT_THE_RECORDS)
    if both == len(first.records) == len(second.records):
        ignored |= {"keys", "left_out"}
    names = dict.fromkeys(name for row in (first, second) for one in row.settings for name in one)
    differing = {}
    for name in names:
        values = [_values(row, name) for row in (first, second)]
        if name not in ignored and values[0] != values[1]:
            differing[name] = (_shown(values[0]), _shown(values[1]))
    return differing


def _values(row: PlayedRow, name: str) -> list[Any]:
    values: list[Any] = []
    for one in row.settings:
        if one.get(name) not in values:
            values.append(one.get(name))
    return sorted(values, key=repr)


def _shown(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _names(rows: Sequence[PlayedRow]) -> str:
    return ", ".join(row.name for row in rows)


def _first(row: PlayedRow) -> str:
    settings = row.settings[0]
    return (
        f"{settings.get('cases')}, {settings.get('split')} split, the first is "
        f"{next(iter(row.records))[0]!r}"
    )
