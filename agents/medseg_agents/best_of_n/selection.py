"""Choice of the best episode of each case, and the store of those that were chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medseg_gym.trajectories import EpisodeKey, TrajectoryStore, TrajectoryWriter


@dataclass
class Selection:
    """The chosen episodes, and counts of the others by reason.

    Args:
        chosen: Key of the best episode of each case that is kept.
        mean_return: Of all episodes.
        best_return: Of the best episode of each case with a readable one, kept or not.
        unreadable: Episodes with an action that could not be read; they are never chosen.
        without: Cases all of whose episodes are of that kind.
        below: Cases whose best episode does not reach the threshold.
    """

    chosen: list[EpisodeKey]
    mean_return: float
    best_return: float
    unreadable: int
    without: int
    below: int


def select_best(store: TrajectoryStore, min_return: float | None) -> Selection:
    """Choose each case's episode of the greatest return, of several the shortest.

    Args:
        store: With the episodes of every case.
        min_return: Episodes below it are not kept.
    """
    best: dict[str, tuple[float, int, EpisodeKey]] = {}
    cases: set[str] = set()
    returns: list[float] = []
    unreadable = 0
    for one in store:
        value = sum(one.rewards)
        cases.add(one.key.case)
        returns.append(value)
        if None in one.prompts:
            unreadable += 1
            continue
        rank = (value, -len(one.steps), one.key)
        if one.key.case not in best or rank[:2] > best[one.key.case][:2]:
            best[one.key.case] = rank
    kept = [key for value, _, key in best.values() if min_return is None or value >= min_return]
    return Selection(
        kept,
        _mean(returns),
        _mean(value for value, _, _ in best.values()),
        unreadable,
        len(cases) - len(best),
        len(best) - len(kept),
    )


def write_best(store: TrajectoryStore, chosen: Iterable[EpisodeKey], out: Path) -> TrajectoryStore:
    """Copy chosen episodes into a store of their own.

    Args:
        store: To read.
        chosen: Keys of the episodes.
        out: Folder of the new store; an episode that is there already is not written again.
    """
    with TrajectoryWriter(out) as writer:
        known = set(TrajectoryStore(out).keys())
        for key in chosen:
            if key not in known:
                one = store.episode(key)
                id = writer.begin(one.facts)
                writer.add([(id, step) for step in one.steps])
    return TrajectoryStore(out)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else float("nan")
