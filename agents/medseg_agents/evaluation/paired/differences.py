"""Paired differences with intervals: what the second run scores more than the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.paired.pairing import Pair
from medseg_gym.statistics import bootstrap_interval

Measure = Callable[[EpisodeRecord], float | None]

MEASURES: dict[str, Measure] = {
    "dice": lambda record: record.dice[-1],
    "iou": lambda record: record.iou[-1],
    "first_dice": lambda record: record.dice_after(1),
    "nsd": lambda record: getattr(record, "nsd", None),
    "hd95": lambda record: getattr(record, "hd95", None),
    "boundary_iou": lambda record: getattr(record, "boundary_iou", None),
    "turns": lambda record: float(record.turns),
    "episode_return": lambda record: record.episode_return,
}
"""Number of a record by its name in results; None where it is not defined, as of whole volumes."""

_EQUAL = 1e-9


def differences(pair: Pair) -> list[dict[str, Any]]:
    """Return a row per measure, over the cases that both played.

    Returns:
        Each with `pair`, `measure`, `n`, `groups`, `undefined` (cases left out because one of the
        two has no such number), `first`, `second` (means), `difference` (second minus first),
        `difference_interval` (95 %, groups resampled together; None with fewer than 5 groups),
        `higher`, `equal` and `lower` (cases where the second has more, as much, less).
        The return is compared only where both runs have the same reward.
    """
    rows = []
    for name, measure in MEASURES.items():
        if name == "episode_return" and "reward" in pair.differing:
            continue
        values = [
            (a.group, measure(a), measure(b)) for a, b in pair.records if _unit(a) == _unit(b)
        ]
        defined = [(g, a, b) for g, a, b in values if a is not None and b is not None]
        if not defined:
            continue
        gains = [b - a for _, a, b in defined]
        groups = [group for group, _, _ in defined]
        rows.append(
            {
                "pair": pair.name,
                "measure": name,
                "n": len(defined),
                "groups": len(set(groups)),
                "undefined": len(pair.cases) - len(defined),
                "first": _mean([a for _, a, _ in defined]),
                "second": _mean([b for _, _, b in defined]),
                "difference": _mean(gains),
                "difference_interval": bootstrap_interval(gains, groups),
                "higher": sum(gain > _EQUAL for gain in gains),
                "equal": sum(abs(gain) <= _EQUAL for gain in gains),
                "lower": sum(gain < -_EQUAL for gain in gains),
            }
        )
    return rows


def case_rows(pair: Pair) -> list[dict[str, Any]]:
    """Return a row per case that both played: its labels, and every measure of both."""
    rows = []
    for (key, seed), (a, b) in zip(pair.cases, pair.records, strict=True):
        row: dict[str, Any] = {"pair": pair.name, "case": key, "seed": seed}
        row |= {name: getattr(a, name) for name in ("group", "modality", "target", "synthetic")}
        for name, measure in MEASURES.items():
            row[f"{name}_first"], row[f"{name}_second"] = measure(a), measure(b)
        row["dice_difference"] = b.dice[-1] - a.dice[-1]
        rows.append(row)
    return rows


def most_different(pair: Pair, count: int) -> list[tuple[EpisodeRecord, EpisodeRecord]]:
    """Return the cases whose final Dice differs most, the largest difference first."""
    by_size = sorted(pair.records, key=lambda two: -abs(two[1].dice[-1] - two[0].dice[-1]))
    return by_size[:count]


def _unit(record: EpisodeRecord) -> str:
    return getattr(record, "unit", "")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
